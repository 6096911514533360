"""`/deployments/{id}/sla`: targets, what was measured last, and the breach log. Measuring is `reconcilers/sla`."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query
from sqlmodel import Session

from api.deps import CallerArg, DepsArg
from api.schemas.deployments import status_of
from api.schemas.sla import SlaBreachPage, SlaBreachView, SlaChange, SlaView
from engine.model.deployment import SlaTargets
from engine.model.errors import Conflict, InvalidSpec
from engine.store import deployments, sla
from engine.store.deployments import owned
from engine.store.tables import DeploymentRow
from engine.store.traffic_tables import SlaBreachRow, SlaStateRow

router = APIRouter(prefix="/deployments/{deployment_id}/sla", tags=["sla"])

DAY = timedelta(hours=24)
FRESH = timedelta(minutes=5)
"""A measurement older than this says nothing of now: the deployment sleeps, or had no traffic to judge."""

_SHOWN = 20


@router.get("", summary="Get the targets, the last measurement and the newest breaches")
def get_sla(deployment_id: str, caller: CallerArg, deps: DepsArg) -> SlaView:
    with deps.database.read() as session:
        return _view(session, owned(session, deployment_id, caller.org_id), deps.clock.now())


@router.patch("", summary="Set targets; null takes one away")
def patch_sla(deployment_id: str, body: SlaChange, caller: CallerArg, deps: DepsArg) -> SlaView:
    asked = body.model_dump(exclude_unset=True)
    for name, value in asked.items():
        _check(name, value)
    now = deps.clock.now()
    with deps.database.write() as session:
        row = owned(session, deployment_id, caller.org_id)
        session.refresh(row, with_for_update=True)  # edits of different targets at the same moment are both kept
        before = deployments.sla_of(row)
        targets = SlaTargets.model_validate(before.model_dump() | asked)
        if row.delete_requested_at is None and targets == before:
            return _view(session, row, now)
        changed = deployments.set_sla(session, row.id, targets, now)
        if changed is None:
            status = status_of(row).value
            raise Conflict(f"deployment {row.id} is {status}: it has no targets any more", status=status)
        return _view(session, changed, now)


@router.get("/breaches", summary="The breach log, newest first")
def list_sla_breaches(
    deployment_id: str,
    caller: CallerArg,
    deps: DepsArg,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    after: Annotated[str | None, Query(description="id of the last one of the page before")] = None,
) -> SlaBreachPage:
    with deps.database.read() as session:
        row = owned(session, deployment_id, caller.org_id)
        rows = sla.breaches(session, row.id, limit=limit + 1, after=after)
    return SlaBreachPage(data=[_breach(r) for r in rows[:limit]], has_more=len(rows) > limit)


def _check(name: str, value: float | None) -> None:
    """Let pass what can be a target.

    Raises:
        InvalidSpec: it is out of its bounds; names them and the value.
    """
    field = SlaTargets.model_json_schema()["properties"][name]["anyOf"][0]
    low, above, high = field.get("minimum"), field.get("exclusiveMinimum"), field["maximum"]
    if value is None or ((low is None or value >= low) and (above is None or value > above) and value <= high):
        return
    bound = f"{low} or more" if above is None else f"more than {above}"
    bounds = {"minimum": low} if above is None else {"more_than": above}
    raise InvalidSpec(
        f"{name} is {bound} and {high} at most, not {value}; null takes it away",
        field=name, value=str(value) if value != value or abs(value) == float("inf") else value, maximum=high, **bounds,
    )  # fmt: skip


def _view(session: Session, row: DeploymentRow, now: datetime) -> SlaView:
    state, newest = sla.state_of(session, row.id), sla.breaches(session, row.id, limit=_SHOWN)
    targets = deployments.sla_of(row)
    missed = sla.breaches_at(session, row.id, state.measured_at) if state else ()
    return SlaView(
        **targets.model_dump(),
        status=_status(targets, state, missed, now),
        breach_count_24h=sla.count_since(session, row.id, now - DAY),
        last_ttft_ms=state.last_ttft_ms if state else None,
        last_throughput_tps=state.last_throughput_tps if state else None,
        measured_at=state.measured_at if state else None,
        source=_source(state.source) if state else None,
        breaches=[_breach(b) for b in newest],
    )


def _status(
    targets: SlaTargets, state: SlaStateRow | None, missed: Any, now: datetime
) -> Literal["ok", "breached", "unknown"]:
    """What the last measurement says of the targets as they are now: one edited since may not be missed any more."""
    ttft, throughput = targets.ttft_target_ms, targets.throughput_target_tps
    if (ttft is None and throughput is None) or state is None or state.measured_at < now - FRESH:
        return "unknown"
    for breach in missed:
        if breach.metric == "ttft_ms" and ttft is not None and breach.measured > ttft:
            return "breached"
        if breach.metric == "throughput_tps" and throughput is not None and breach.measured < throughput:
            return "breached"
    return "ok"


def _source(name: str) -> Literal["traffic", "probe"]:
    return "probe" if name == "probe" else "traffic"


def _breach(row: SlaBreachRow) -> SlaBreachView:
    return SlaBreachView.model_validate(row, from_attributes=True)
