"""Reads one pod's snapshot in one short transaction. Asks no machine and no cloud: applying does."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from sqlmodel import Session

from engine.model.deployment import Condition, UpdateKind, UpdateState
from engine.model.pod import FindRoom, PodMachine, PodPhase, Room, Taken, Target
from engine.model.stack import StackOutputs, stack_name
from engine.reconcilers.deployments.observe import failures_in_a_row
from engine.reconcilers.deployments.snapshot import UpdateView, Usage
from engine.reconcilers.pods.snapshot import PodSnapshot
from engine.store import placements, pods, updates, usage
from engine.store.pod_tables import PodRow
from engine.store.tables import UpdateRow


@dataclass(frozen=True)
class PodObservation:
    """The snapshot decisions are made from, and the row whose version guards what is recorded afterwards."""

    row: PodRow
    snapshot: PodSnapshot


def observe(session: Session, pod_id: str, find_room: FindRoom) -> PodObservation | None:
    """What is known now; None when there is no such pod."""
    row = pods.get(session, pod_id)
    if row is None:
        return None
    recent = [_view(u) for u in updates.list_for_deployment(session, pod_id)]
    ended = sorted((u for u in recent if u.finished_at is not None), key=lambda u: (u.finished_at, u.id))
    open_update = updates.open_for_stack(session, stack_name(pod_id))
    spec, place = pods.spec_of(row), pods.place_of(row)
    needs_room = pods.wants_machine(row) and not row.held_gpus and row.delete_requested_at is None
    room = find_room(spec, place, taken(session)) if needs_room else Room()
    snapshot = PodSnapshot(
        pod_id=row.id,
        spec=spec,
        generation=row.generation,
        revision=row.revision,
        phase=PodPhase(row.phase),
        created_at=row.created_at,
        is_wished=pods.is_wished(row),
        failed_generation=row.failed_generation,
        phase_reason=row.phase_reason,
        observed_generation=row.observed_generation,
        place=place,
        held_gpus=row.held_gpus,
        machine=machine_of(row),
        ports=MappingProxyType(ports_of(row)),
        taken_ports=pods.published_ports(session, row.host, other_than=row.id),
        conditions=tuple(Condition.model_validate(c) for c in row.conditions),
        suspended_reason=row.suspended_reason,
        spec_changed_at=row.spec_changed_at,
        delete_requested_at=row.delete_requested_at,
        precharged=row.precharged,
        open_update=_view(open_update) if open_update else None,
        last_update=ended[-1] if ended else None,
        last_up=_last(session, pod_id, UpdateKind.UP),
        last_refresh=_last(session, pod_id, UpdateKind.REFRESH),
        last_destroy=_last(session, pod_id, UpdateKind.DESTROY),
        failures=failures_in_a_row(ended),
        open_usage=tuple(Usage(u.replica, u.started_at) for u in usage.open_for_deployment(session, pod_id)),
        offers=room.offers,
        passed_over=room.passed_over,
    )
    return PodObservation(row, snapshot)


def taken(session: Session) -> Taken:
    """What is placed at this moment."""
    placed = placements.everything(session)
    return Taken(placements.total(placed), placements.taken_devices(placed))


def taken_soon(session: Session, find_room: FindRoom) -> Taken:
    """What is placed, and what accepted pods that have no place yet will take, each the best offer it gets."""
    now_taken = taken(session)
    used, devices = dict(now_taken.used), dict(now_taken.devices)
    for row in pods.unplaced(session):
        spec = pods.spec_of(row)
        room = find_room(spec, None, Taken(used, devices))
        if room.offers and room.offers[0].place.target is Target.DOCKER:
            offer = room.offers[0]
            where = (offer.place.host, offer.place.pool)
            used[where] = used.get(where, 0) + spec.gpu_count
            devices[where[0]] = devices.get(where[0], frozenset()) | set(offer.devices)
    return Taken(used, devices)


def machine_of(row: PodRow) -> PodMachine | None:
    """What the row says runs."""
    return PodMachine(row.machine_id, row.address, MappingProxyType(ports_of(row))) if row.machine_id else None


def ports_of(row: PodRow) -> dict[int, int]:
    """The row's ports, whose keys JSON made texts."""
    return {int(inside): outside for inside, outside in row.ports.items()}


def _last(session: Session, pod_id: str, kind: UpdateKind) -> UpdateView | None:
    row = updates.last_succeeded(session, pod_id, [kind])
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
