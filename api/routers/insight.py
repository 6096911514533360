"""What a deployment did and is made of: `/logs`, `/stack`, `/cost`. Reads only."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from fastapi.concurrency import run_in_threadpool

from api.checkpoints import hide_secrets
from api.deps import CallerArg, Deps, DepsArg
from api.schemas.deployments import (
    CostInterval,
    DeploymentCost,
    DeploymentLogs,
    ReplicaLogs,
    StackResource,
    StackUpdate,
    StackView,
)
from engine.billing.meter import interval_of
from engine.billing.rating import cost_microdollars
from engine.model.access import Principal
from engine.model.deployment import Replica, UpdateKind
from engine.model.errors import NotFound, StackyardError
from engine.model.failure_words import for_tenant
from engine.model.money import to_usd
from engine.model.stack import stack_name
from engine.store import deployments, updates, usage
from engine.store.deployments import owned
from engine.store.tables import DeploymentRow, UpdateRow, UsageIntervalRow
from stacks import catalog

router = APIRouter(prefix="/deployments/{deployment_id}", tags=["insight"])


@router.get("/logs", summary="The last lines of every replica's model server")
async def get_logs(
    deployment_id: str,
    caller: CallerArg,
    deps: DepsArg,
    tail: Annotated[int, Query(ge=1, le=5000, description="lines per replica")] = 100,
    replica: Annotated[str | None, Query(description="only this replica")] = None,
) -> DeploymentLogs:
    row = await run_in_threadpool(_row_of, deps, deployment_id, caller)
    replicas = [r for r in map(Replica.model_validate, row.replicas) if replica in (None, r.name)]
    if replica is not None and not replicas:
        raise NotFound(f"deployment {deployment_id} has no replica {replica}")
    return DeploymentLogs(data=await asyncio.gather(*(_tail(deps, row, one, tail) for one in replicas)))


@router.get("/stack", summary="The Pulumi stack behind a deployment")
def get_stack(deployment_id: str, caller: CallerArg, deps: DepsArg) -> StackView:
    with deps.database.read() as session:
        row = owned(session, deployment_id, caller.org_id)
        history = updates.list_for_deployment(session, row.id, limit=1)
        done = updates.last_succeeded(session, row.id, (UpdateKind.UP, UpdateKind.DESTROY))
    stack = stack_name(row.id)
    states = deps.stacks.resources(stack) or []
    return StackView(
        stack=stack,
        resources=[_resource(state) for state in states],
        outputs={name: hide_secrets(value) for name, value in _outputs(states, done).items()},
        last_update=_update(history[0]) if history else None,
    )


@router.get("/cost", summary="What a deployment has cost so far")
def get_cost(deployment_id: str, caller: CallerArg, deps: DepsArg) -> DeploymentCost:
    now = deps.clock.now()
    with deps.database.read() as session:
        row = owned(session, deployment_id, caller.org_id)
        rows = usage.for_deployment(session, row.id)
    spec = deployments.running_spec_of(row)
    billed = 0 if row.delete_requested_at else spec.replicas
    intervals = [interval_of(r) for r in rows]
    microdollars = cost_microdollars(intervals, now)
    return DeploymentCost(
        deployment_id=row.id,
        hourly_cost_usd=float(catalog.hourly_usd(spec.gpu_type) * billed),
        microdollars=microdollars,
        usd=f"{to_usd(microdollars):.6f}",
        as_of=now,
        intervals=[_interval(r, now) for r in rows],
    )


def _row_of(deps: Deps, deployment_id: str, caller: Principal) -> DeploymentRow:
    with deps.database.read() as session:
        return owned(session, deployment_id, caller.org_id)


async def _tail(deps: Deps, row: DeploymentRow, replica: Replica, lines: int) -> ReplicaLogs:
    """One replica's lines; one that does not answer says so in its place."""
    try:
        return ReplicaLogs(replica=replica.name, lines=list(await deps.logs.tail(row, replica, lines)))
    except StackyardError as err:
        return ReplicaLogs(replica=replica.name, lines=[], error=err.message)


def _seconds(row: UsageIntervalRow, now: datetime) -> float:
    return max(0.0, ((row.ended_at or now) - row.started_at).total_seconds())


def _interval(row: UsageIntervalRow, now: datetime) -> CostInterval:
    return CostInterval(
        replica=row.replica, gpu_type=row.gpu_type, hourly_rate_usd=float(row.hourly_rate_usd),
        started_at=row.started_at, ended_at=row.ended_at, seconds=_seconds(row, now),
    )  # fmt: skip


def _outputs(states: list[dict[str, Any]], done: UpdateRow | None) -> dict[str, Any]:
    """Stack outputs: from the checkpoint, which knows what is secret; else as recorded by the last operation."""
    for state in states:
        if state.get("type") == "pulumi:pulumi:Stack":
            return dict(state.get("outputs") or {})
    return dict(done.outputs) if done else {}


def _resource(state: dict[str, Any]) -> StackResource:
    urn = str(state["urn"])
    return StackResource(
        urn=urn, type=str(state["type"]), name=urn.rsplit("::", 1)[-1], id=state.get("id"), parent=state.get("parent")
    )


def _update(row: UpdateRow) -> StackUpdate:
    shown = StackUpdate.model_validate(row, from_attributes=True)
    return shown.model_copy(update={"message": for_tenant(row.message)})
