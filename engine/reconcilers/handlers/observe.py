"""Reads one handler deployment's snapshot in one short transaction. Asks no machine and no cloud: applying does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from sqlmodel import Session

from engine.model.deployment import Condition, UpdateKind, UpdateState
from engine.model.handler import ColdStart, Refusal, StartFailures
from engine.model.stack import StackOutputs, stack_name
from engine.reconcilers.deployments.observe import failures_in_a_row
from engine.reconcilers.deployments.snapshot import UpdateView
from engine.reconcilers.handlers.processes import ProcessBook
from engine.reconcilers.handlers.snapshot import Activity, Place, Queue, Snapshot
from engine.store import handlers, jobs, placements, updates
from engine.store.handler_tables import HandlerRow
from engine.store.tables import UpdateRow

PlacesOf = Callable[[Sequence[str]], Sequence[Place]]
"""Pools in order of preference → everywhere they can be had, with the whole capacity of each place."""


@dataclass(frozen=True)
class HandlerObservation:
    """The snapshot decisions are made from, and the row whose version guards what is recorded afterwards."""

    row: HandlerRow
    snapshot: Snapshot


def observe(session: Session, handler_id: str, places_of: PlacesOf, book: ProcessBook) -> HandlerObservation | None:
    """What is known now; None when there is no such deployment."""
    row = handlers.get(session, handler_id)
    if row is None:
        return None
    recent = [_view(u) for u in updates.list_for_deployment(session, handler_id)]
    ended = sorted((u for u in recent if u.finished_at is not None), key=lambda u: (u.finished_at, u.id))
    open_update = updates.open_for_stack(session, stack_name(handler_id))
    facts = jobs.queue_facts(session, handler_id)
    spec = handlers.spec_of(row)
    snapshot = Snapshot(
        handler_id=row.id,
        spec=spec,
        generation=row.generation,
        phase=handlers.phase_of(row),
        created_at=row.created_at,
        phase_reason=row.phase_reason,
        observed_generation=row.observed_generation,
        suspended_reason=row.suspended_reason or ("suspended" if row.suspended_at else ""),
        delete_requested_at=row.delete_requested_at,
        workers=handlers.workers_of(row),
        workers_made=row.workers_made,
        revision=row.placement_revision,
        prepared_hosts=tuple(row.prepared_hosts),
        start_failures=StartFailures.model_validate(row.start_failures) if row.start_failures else None,
        refusals=tuple(Refusal.model_validate(r) for r in row.refusals),
        cold_starts=tuple(ColdStart.model_validate(c) for c in row.cold_starts),
        conditions=tuple(Condition.model_validate(c) for c in row.conditions),
        queue=_queue(facts),
        activity={
            name: Activity(seen.ready_at, seen.idle_since, seen.in_flight, seen.drained_at, seen.opened_at)
            for name, seen in handlers.activity(session, handler_id).items()
        },
        places=free_places(session, places_of(spec.pools)),
        checked=book.checked(handler_id),
        ended=book.ended(handler_id),
        silent=book.silent(handler_id),
        open_update=_view(open_update) if open_update else None,
        last_update=ended[-1] if ended else None,
        last_up=_last(session, handler_id, UpdateKind.UP),
        last_refresh=_last(session, handler_id, UpdateKind.REFRESH),
        last_destroy=_last(session, handler_id, UpdateKind.DESTROY),
        failures=failures_in_a_row(ended),
    )
    return HandlerObservation(row, snapshot)


def free_places(session: Session, places: Sequence[Place]) -> tuple[Place, ...]:
    """The places with what nobody has of them at this moment."""
    if not any(place.host for place in places):
        return tuple(places)
    placed = placements.everything(session)
    used, devices = placements.total(placed), placements.taken_devices(placed)
    return tuple(
        place
        if place.free is None
        else replace(
            place,
            free=max(0, place.free - used.get((place.host, place.pool), 0)),
            devices=tuple(d for d in place.devices if d not in devices.get(place.host, frozenset())),
        )
        for place in places
    )


def _queue(facts: jobs.QueueFacts) -> Queue:
    longest = {worker: timedelta(milliseconds=ms) for worker, ms in facts.longest_ms_by_worker.items()}
    return Queue(
        facts.queued, facts.running, facts.oldest_queued_at, facts.last_job_at, facts.running_by_worker, longest
    )


def _last(session: Session, handler_id: str, kind: UpdateKind) -> UpdateView | None:
    row = updates.last_succeeded(session, handler_id, [kind])
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
