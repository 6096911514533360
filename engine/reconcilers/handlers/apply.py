"""Performs what was decided about one handler deployment and records it once. Chooses nothing: `decide` did."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, assert_never

from sqlmodel import Session

from engine.model.clock import Clock
from engine.model.deployment import Condition
from engine.model.errors import CloudError, StaleLease
from engine.model.handler import HandlerPhase, Worker, advance
from engine.model.stack import stack_name
from engine.model.worker_token import worker_token
from engine.reconcilers.deployments.apply import LeaderFence, Outcome
from engine.reconcilers.deployments.probe import Credentials
from engine.reconcilers.deployments.snapshot import (
    RESOURCES_PRESENT,
    DeleteLeftovers,
    MarkDeleted,
    Observed,
    SetConditions,
    VerifyGone,
    Wait,
)
from engine.reconcilers.handlers.observe import HandlerObservation, PlacesOf, free_places
from engine.reconcilers.handlers.processes import ProcessBook, Silent, WorkerHost
from engine.reconcilers.handlers.snapshot import (
    Action,
    CheckWorkers,
    HandlerPolicy,
    RecordWorkers,
    SetPhase,
    StartUpdate,
)
from engine.reconcilers.handlers.targets import HandlerTargets
from engine.reconcilers.inventory import Resource
from engine.store import handlers, leases, placements, updates
from engine.store.database import Database
from engine.store.deployments import Recorded
from engine.store.handler_tables import HandlerRow
from engine.store.sealing import Sealer
from engine.store.tables import UpdateRow


@dataclass
class _Record:
    """What one round writes, collected while its effects are performed."""

    phase: HandlerPhase
    conditions: dict[str, Condition]
    values: dict[str, Any] = field(default_factory=dict)
    placed: tuple[Worker, ...] = ()
    forgotten: tuple[str, ...] = ()
    found_ended: bool = False
    is_gone: bool = False
    update: StartUpdate | None = None
    wait_until: datetime | None = None


@dataclass(frozen=True)
class HandlerApplier:
    """Performs actions with this process's connections.

    Attributes:
        places_of: as `observe` uses it; asked again when places are recorded.
        submit: hands an update id and its stack to the controller.
        fence: of the reconcilers' lease: a process that lost it writes nothing.
    """

    database: Database
    clock: Clock
    sealer: Sealer
    processes: WorkerHost
    targets: HandlerTargets
    places_of: PlacesOf
    submit: Callable[[str, str], None]
    fence: LeaderFence
    policy: HandlerPolicy
    book: ProcessBook = field(default_factory=ProcessBook)

    async def apply(self, observation: HandlerObservation, actions: Sequence[Action]) -> Outcome:
        """Perform and record. Recording nothing (someone edited meanwhile) is fine: the next look decides anew."""
        row, snapshot = observation.row, observation.snapshot
        record = _Record(snapshot.phase, {c.type: c for c in snapshot.conditions})
        for action in actions:
            await self._perform(action, observation, record)
        recorded = await asyncio.to_thread(self._commit, row, record)
        if recorded is Recorded.STALE:
            return Outcome(look_again=True)
        self.book.forget(row.id, None if record.is_gone else record.forgotten)
        if record.update is not None:
            await asyncio.to_thread(self.submit, record.update.update_id, stack_name(row.id))
        again = bool(record.update) or record.found_ended or recorded is Recorded.VISIBLY
        return Outcome(look_again=again, wait_until=record.wait_until)

    async def _perform(self, action: Action, observation: HandlerObservation, record: _Record) -> None:
        row = observation.row
        match action:
            case SetPhase(phase, reason):
                record.phase = advance(record.phase, phase)
                record.values |= {"phase": record.phase.value, "phase_reason": reason}
            case Observed(generation):
                record.values["observed_generation"] = generation
            case RecordWorkers():
                record.values |= _columns(action)
                record.placed, record.forgotten = action.placed, action.forgotten
            case CheckWorkers(names):
                record.found_ended = await self._check(row, observation.snapshot.workers, frozenset(names))
            case SetConditions(conditions):
                record.conditions |= {c.type: c for c in conditions}
            case VerifyGone():
                record.conditions[RESOURCES_PRESENT] = await self._verify_gone(row)
            case DeleteLeftovers():
                await self._delete_leftovers(row)
            case MarkDeleted():
                record.phase = advance(record.phase, HandlerPhase.INACTIVE)
                record.is_gone = True
                record.values |= {"phase": record.phase.value, "phase_reason": "", "deleted_at": self.clock.now()}
            case StartUpdate():
                record.update = action
            case Wait(until, _reason):
                record.wait_until = until
            case _:
                assert_never(action)

    def _commit(self, row: HandlerRow, record: _Record) -> Recorded:
        """One guarded transaction; nothing is written when the row moved on since it was read."""
        self.fence.check()
        now = self.clock.now()
        conditions = [c.model_dump(mode="json") for c in record.conditions.values()]
        with self.database.write() as session:
            self._check_lease(session, now)
            if record.placed and not self._still_free(session, row, record.placed):
                return Recorded.STALE
            recorded = handlers.record_status(session, row, record.values | {"conditions": conditions}, now)
            if recorded is Recorded.STALE:
                return recorded
            if record.forgotten:
                handlers.forget_activity(session, row.id, record.forgotten)
            if record.update is not None:
                _insert_update(session, row, record.update, now)
        return recorded

    def _check_lease(self, session: Session, now: datetime) -> None:
        """The fence answers from memory; what is written asks the database, in the transaction that writes."""
        lease = self.fence.lease
        if not leases.is_held(session, lease, now):
            raise StaleLease(f"the lease {lease.name} (token {lease.token}) ran out or was taken over")

    def _still_free(self, session: Session, row: HandlerRow, placed: Sequence[Worker]) -> bool:
        """Looks at pods and handlers run side by side: another of them may have taken a place meanwhile."""
        if not any(worker.host for worker in placed):
            return True
        placements.lock(session)
        places = {(p.host, p.pool): p for p in free_places(session, self.places_of(handlers.spec_of(row).pools))}
        wanted: dict[tuple[str, str], list[Worker]] = {}
        for worker in (w for w in placed if w.host):
            wanted.setdefault((worker.host, worker.pool), []).append(worker)
        for where, workers in wanted.items():
            place = places.get(where)
            if place is None or (place.free or 0) < len(workers):
                return False
            if not all(set(w.devices) <= set(place.devices) for w in workers):
                return False
        return True

    async def _check(self, row: HandlerRow, workers: Sequence[Worker], names: frozenset[str]) -> bool:
        """Whether a process was found to have ended."""
        token = self.sealer.open(row.worker_token_sealed)
        asked = [worker for worker in workers if worker.name in names]
        known = [Credentials(row.worker_fingerprint, worker_token(token, row.id, w.name)) for w in asked]
        found = await asyncio.gather(
            *(self.processes.why_ended(row.id, w, c) for w, c in zip(asked, known, strict=True)),
            return_exceptions=True,
        )
        now = self.clock.now()
        for worker, why in zip(asked, found, strict=True):
            if isinstance(why, Silent):
                self.book.note_silence(row.id, worker.name, now)
            elif isinstance(why, BaseException):
                raise why
            else:
                self.book.note(row.id, worker.name, why, now)
        return any(isinstance(why, str) for why in found)

    async def _owned(self, row: HandlerRow) -> list[Resource]:
        return await self.targets.owned(stack_name(row.id), row.prepared_hosts)

    async def _verify_gone(self, row: HandlerRow) -> Condition:
        asked_at = self.clock.now()
        try:
            left = await self._owned(row)
        except CloudError as err:
            return Condition(
                type=RESOURCES_PRESENT, status=True, reason="Unknown", message=err.message, changed_at=asked_at
            )
        names = ", ".join(f"{r.kind} {r.name}" for r in left)
        return Condition(
            type=RESOURCES_PRESENT,
            status=bool(left),
            reason="Listed" if left else "Gone",
            message=f"there still is {names}" if left else "nothing of this deployment is listed",
            changed_at=asked_at,
        )

    async def _delete_leftovers(self, row: HandlerRow) -> None:
        try:
            for resource in await self._owned(row):
                self.fence.check()
                await self.targets.delete(resource)
        except CloudError:
            return  # the verification that follows says what is left


def _columns(recorded: RecordWorkers) -> dict[str, Any]:
    """The row's columns, as JSON has them."""
    failures = recorded.start_failures
    return {
        "workers": [w.model_dump(mode="json") for w in recorded.workers],
        "workers_made": recorded.workers_made,
        "placement_revision": recorded.revision,
        "prepared_hosts": list(recorded.prepared_hosts),
        "start_failures": failures.model_dump(mode="json") if failures is not None else {},
        "refusals": [r.model_dump(mode="json") for r in recorded.refusals],
        "cold_starts": [c.model_dump(mode="json") for c in recorded.cold_starts],
    }


def _insert_update(session: Session, row: HandlerRow, action: StartUpdate, now: datetime) -> None:
    updates.insert(
        session,
        UpdateRow(
            id=action.update_id,
            deployment_id=row.id,
            stack=stack_name(row.id),
            kind=action.kind.value,
            generation=action.revision,
            requested_at=now,
        ),
    )
