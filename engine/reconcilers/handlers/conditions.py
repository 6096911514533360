"""The conditions of a handler deployment: why nothing moves, in sentences for its owner. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from engine.model.deployment import Condition, UpdateKind, UpdateState
from engine.model.failure_words import for_tenant
from engine.model.handler import WorkerPhase
from engine.reconcilers.deployments.snapshot import STACK_UPDATED
from engine.reconcilers.handlers.snapshot import (
    CAPACITY_AVAILABLE,
    LIVE,
    WORKERS_READY,
    Snapshot,
)


def stack_condition(s: Snapshot, wanted: UpdateKind | None, retry_at: datetime, now: datetime) -> Condition:
    """Whether its stack is as its workers are to be."""

    def condition(status: bool, reason: str, message: str, until: datetime | None = None) -> Condition:
        return Condition(type=STACK_UPDATED, status=status, reason=reason, message=message, until=until, changed_at=now)

    if s.open_update is not None:
        verb = "is running" if s.open_update.state is UpdateState.RUNNING else "waits for its turn"
        return condition(False, s.open_update.state.value.capitalize(), f"{s.open_update.kind} {verb}")
    if wanted is None:
        return condition(True, "UpToDate", "the stack is as it should be")
    last = s.last_update
    if last is not None and last.state is UpdateState.FAILED and retry_at != s.created_at:
        return condition(False, "Failed", for_tenant(last.message), until=retry_at)
    return condition(False, "Pending", f"{wanted} is due")


def workers_condition(s: Snapshot, wanted: int, now: datetime, *, gave_up: bool) -> Condition:
    """Whether as many workers are ready as are wanted."""
    live = [w for w in s.workers if w.phase in LIVE]
    ready = sum(w.phase is WorkerPhase.READY for w in live)
    failures = s.start_failures
    is_met = ready >= wanted and not gave_up
    if gave_up and failures is not None:
        reason = "ImageNotFound" if failures.is_final else "CrashLoop"
        message = f"{failures.reason}; no worker is started until the deployment is changed"
    elif failures is not None and not is_met:
        reason, message = "Crashed", f"{failures.count} in a row: {failures.reason}"
    else:
        reason = "Ready" if is_met else "Booting" if live else "NotCreated"
        message = f"{ready} of {max(ready, wanted)} workers are ready"
    return Condition(type=WORKERS_READY, status=is_met, reason=reason, message=message, changed_at=now)


def capacity_condition(s: Snapshot, no_room: str, now: datetime) -> Condition:
    """Whether its pools have room, and why those in front were passed over."""
    if no_room:
        return Condition(
            type=CAPACITY_AVAILABLE, status=False, reason="NoCapacity", message=no_room, changed_at=now
        )  # fmt: skip
    refused = [r for r in s.refusals if r.until > now]
    words = "; ".join(f"{r.pool} on {r.host or f'{r.target} {r.region}'}: {r.why}" for r in refused)
    newest = max(s.workers, key=lambda w: w.created_at, default=None)
    where = f"{newest.name} is in {newest.pool} on {newest.host or newest.target}" if newest is not None else ""
    passed = f"; passed over: {words}" if words else ""
    return Condition(
        type=CAPACITY_AVAILABLE, status=True, reason="Placed" if newest else "Unused", message=where + passed,
        changed_at=now,
    )  # fmt: skip


def changed(s: Snapshot, conditions: Sequence[Condition]) -> tuple[Condition, ...]:
    """The conditions that say something new; an unchanged one keeps the time of its last change."""
    return tuple(
        c
        for c in conditions
        if (old := s.condition(c.type)) is None or old.model_copy(update={"changed_at": c.changed_at}) != c
    )
