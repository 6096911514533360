"""How many workers, and which: from the queue, the spec and what each worker does. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil

from engine.model.handler import Worker, WorkerPhase
from engine.reconcilers.handlers.snapshot import LIVE, Activity, Snapshot

_NOTHING = Activity()


@dataclass(frozen=True)
class Scaling:
    """What scaling asks for.

    Attributes:
        missing: how many workers of the present generation to add.
        drained: workers to drain.
        until: when something is due that nothing announces; None: nothing is.
    """

    missing: int = 0
    drained: frozenset[str] = frozenset()
    until: datetime | None = None


def wanted_workers(s: Snapshot) -> int:
    """How many workers the queue and the spec ask for, ready or not."""
    if s.suspended_reason or s.delete_requested_at is not None:
        return 0
    going = {w.name for w in s.workers if w.phase not in LIVE}
    ending = sum(jobs for name, jobs in s.queue.running_by_worker.items() if name in going)  # nobody takes these over
    waiting = ceil((s.queue.queued + max(0, s.queue.running - ending)) / s.spec.concurrency)
    return min(s.spec.workers_max, max(s.spec.workers_min, waiting))


def scale(s: Snapshot, workers: tuple[Worker, ...], now: datetime, *, may_add: bool) -> Scaling:
    """What to add and what to drain.

    Args:
        may_add: whether new workers can be made at all now; without it those of older generations stay.
    """
    live = [w for w in workers if w.phase in LIVE]
    if s.suspended_reason:
        return Scaling(drained=frozenset(w.name for w in live))
    wanted = wanted_workers(s)
    current = [w for w in live if w.generation == s.generation]
    old = [w for w in live if w.generation != s.generation]
    until: list[datetime] = []
    missing = _missing(s, wanted, current, now, until)
    surplus = _surplus_of_current(s, wanted, current, now, until)
    going = [w for w in workers if w.phase is WorkerPhase.DRAINING]
    replacing = bool(old) or any(w.generation != s.generation for w in going)
    room = s.spec.workers_max + (1 if replacing else 0) - len(live) - len(going)
    stuck = missing > 0 and room <= 0 and not going  # what drains makes room by itself
    drained = set(surplus) | _replaced(s, wanted, current, old, may_add=may_add, stuck=stuck)
    return Scaling(
        min(missing, max(0, room)) if may_add else 0,
        frozenset(drained),
        min(until, default=None),
    )


def _missing(s: Snapshot, wanted: int, current: list[Worker], now: datetime, until: list[datetime]) -> int:
    """Beyond `workers_min`, one is added to others only when a job has waited for the queue delay: they may be free
    sooner than a new one is up."""
    missing = wanted - len(current)
    if missing <= 0 or len(current) < max(1, s.spec.workers_min) or s.queue.oldest_queued_at is None:
        return max(0, missing) if len(current) < s.spec.workers_min or not current else 0
    due = s.queue.oldest_queued_at + timedelta(seconds=s.spec.queue_delay_seconds)
    if due <= now:
        return missing
    until.append(due)
    return 0


def _surplus_of_current(
    s: Snapshot, wanted: int, current: list[Worker], now: datetime, until: list[datetime]
) -> list[str]:
    """Idle for longer than the timeout, the longest idle first; more than the limit, whatever they do."""
    over = len(current) - s.spec.workers_max
    timeout = timedelta(seconds=s.spec.idle_timeout_seconds)
    idle = sorted((since, w.name) for w in current if (since := idle_since(s, w)) is not None)
    spare = len(current) - wanted
    gone = [name for since, name in idle[: max(0, spare)] if since + timeout <= now]
    until += [since + timeout for since, name in idle[: max(0, spare)] if since + timeout > now]
    if over > len(gone):
        gone += [w.name for w in by_idleness(s, current) if w.name not in gone][: over - len(gone)]
    return gone


def _replaced(
    s: Snapshot, wanted: int, current: list[Worker], old: list[Worker], *, may_add: bool, stuck: bool
) -> set[str]:
    """Workers of older generations that new ones have made superfluous; one of them, where there is no room for new."""
    if not old:
        return set()
    ready = sum(w.phase is WorkerPhase.READY for w in current)
    kept = max(0, wanted - ready)
    if not may_add:
        kept = max(kept, min(len(old), wanted))
    idle_first = by_idleness(s, old)
    surplus = len(old) - kept
    if surplus <= 0 and stuck and may_add:
        surplus = 1
    return {w.name for w in idle_first[: max(0, surplus)]}


def idle_since(s: Snapshot, worker: Worker) -> datetime | None:
    """Since when a ready worker has had no work; None: it has some, or is not ready."""
    if worker.phase is not WorkerPhase.READY or is_busy(s, worker.name):
        return None
    seen = s.activity.get(worker.name, _NOTHING)
    return seen.idle_since or worker.phase_since


def is_busy(s: Snapshot, name: str) -> bool:
    """Whether a worker has a job, by the queue's rows or by the dispatcher's word."""
    return bool(s.queue.running_by_worker.get(name) or s.activity.get(name, _NOTHING).in_flight)


def by_idleness(s: Snapshot, workers: list[Worker]) -> list[Worker]:
    """Those that are not up yet first, then idle ones, the longest idle first, then the busy ones."""

    def order(worker: Worker) -> tuple[int, datetime, str]:
        if worker.phase is not WorkerPhase.READY:
            return 0, worker.created_at, worker.name
        since = idle_since(s, worker)
        return (1, since, worker.name) if since is not None else (2, worker.created_at, worker.name)

    return sorted(workers, key=order)
