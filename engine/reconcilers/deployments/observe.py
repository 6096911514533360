"""Reads one deployment's snapshot in one short transaction. Asks no machine and no cloud: applying does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlmodel import Session

from engine.model.deployment import Condition, MachineFailures, Phase, Replica, UpdateKind, UpdateState
from engine.model.stack import StackOutputs, stack_name
from engine.reconcilers.deployments.outages import CloudView, outages_of
from engine.reconcilers.deployments.snapshot import Snapshot, UpdateView, Usage
from engine.store import deployments, updates, usage
from engine.store.tables import DeploymentRow, UpdateRow


@dataclass(frozen=True)
class Observation:
    """The snapshot decisions are made from, and the row whose version guards what is recorded afterwards."""

    row: DeploymentRow
    snapshot: Snapshot


def observe(session: Session, deployment_id: str, seen: CloudView | None = None) -> Observation | None:
    """What is known now; None when there is no such deployment.

    Args:
        seen: what the cloud last said of all machines; None: it was not asked yet.
    """
    row = deployments.get(session, deployment_id)
    if row is None:
        return None
    recent = [_view(u) for u in updates.list_for_deployment(session, deployment_id)]
    ended = sorted((u for u in recent if u.finished_at is not None), key=lambda u: (u.finished_at, u.id))
    open_update = updates.open_for_stack(session, stack_name(deployment_id))
    replicas = tuple(Replica.model_validate(r) for r in row.replicas)
    machines = deployments.machines_of(row)
    last_up = _last(session, deployment_id, UpdateKind.UP)
    snapshot = Snapshot(
        deployment_id=row.id,
        spec=deployments.running_spec_of(row),
        generation=row.generation,
        revision=row.revision,
        phase=Phase(row.phase),
        created_at=row.created_at,
        phase_reason=row.phase_reason,
        observed_generation=row.observed_generation,
        replicas=replicas,
        conditions=tuple(Condition.model_validate(c) for c in row.conditions),
        suspended_reason=row.suspended_reason,
        spec_changed_at=row.spec_changed_at,
        delete_requested_at=row.delete_requested_at,
        open_update=_view(open_update) if open_update else None,
        last_update=ended[-1] if ended else None,
        last_up=last_up,
        last_refresh=_last(session, deployment_id, UpdateKind.REFRESH),
        last_destroy=_last(session, deployment_id, UpdateKind.DESTROY),
        failures=failures_in_a_row(ended),
        open_usage=tuple(Usage(u.replica, u.started_at) for u in usage.open_for_deployment(session, deployment_id)),
        machines=machines,
        machines_made=row.machines_made,
        placement_revision=row.placement_revision,
        machine_failures=MachineFailures.model_validate(row.machine_failures) if row.machine_failures else None,
        told_phase=row.told_phase,
        outages=outages_of(seen, machines, replicas, last_up.outputs.replicas) if seen and last_up else {},
    )
    return Observation(row, snapshot)


def failures_in_a_row(ended: Sequence[UpdateView]) -> int:
    """How many operations failed since one last did not, all of the last one's kind and generation; oldest first."""
    failures = 0
    for update in reversed(ended):
        last = ended[-1]
        if update.state is not UpdateState.FAILED or (update.kind, update.generation) != (last.kind, last.generation):
            break
        failures += 1
    return failures


def _last(session: Session, deployment_id: str, kind: UpdateKind) -> UpdateView | None:
    row = updates.last_succeeded(session, deployment_id, [kind])
    return _view(row) if row else None


def _view(row: UpdateRow) -> UpdateView:
    return UpdateView(
        id=row.id,
        kind=UpdateKind(row.kind),
        state=UpdateState(row.state),
        generation=row.generation,
        requested_at=row.requested_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        error_code=row.error_code,
        message=row.message,
        outputs=StackOutputs.from_outputs(row.outputs),
    )
