"""Handler deployments and their workers as the dispatcher knows them: from their rows, and from how workers behave."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime

from engine.jobs.cards import Card, CardQueue
from engine.model.handler import HandlerPhase, HandlerSpec, Protocol, Worker, WorkerPhase
from engine.store.handler_tables import WorkerActivityRow

IDLE_SECONDS = 0.5
GOING = frozenset({WorkerPhase.DRAINING, WorkerPhase.EXITED})


class BusyMeter:
    """How long a worker worked for each of its jobs: a second in which it had three of them is a third for each."""

    def __init__(self) -> None:
        self._jobs = 0
        self._share = 0.0
        self._at = 0.0

    def enter(self, now: float) -> float:
        """A job begins; returns the mark to leave with."""
        self._tick(now)
        self._jobs += 1
        return self._share

    def leave(self, now: float, mark: float) -> float:
        """It ends; returns its seconds."""
        self._tick(now)
        self._jobs -= 1
        return self._share - mark

    def _tick(self, now: float) -> None:
        if self._jobs:
            self._share += max(0.0, now - self._at) / self._jobs
        self._at = now


@dataclass(eq=False)
class WorkerEntry:
    """One worker.

    Attributes:
        protocol: None until its behaviour told.
        opened_at: when it first said anything, also that it is not ready; ready_at: when it could do jobs.
        is_suspect: a connection to it failed: nothing is sent until it answers again.
        cards: jobs it works on, by id.
        stopped: jobs it should stop working on → when that was said first.
        idle_from: since when it has no work (monotonic); None: it has, or never was ready.
        idle_counted: how much of the present idle time is in `idle_unbilled` already.
        idle_unbilled: idle seconds that are to be billed and were not yet; the first one was at `idle_unbilled_from`.
    """

    handler_id: str
    worker: Worker
    protocol: Protocol | None = None
    opened_at: datetime | None = None
    ready_at: datetime | None = None
    idle_since: datetime | None = None
    last_seen_at: datetime | None = None
    drained_at: datetime | None = None
    boot_ms: int | None = None
    concurrency: int = 1
    is_suspect: bool = False
    cards: dict[str, Card] = field(default_factory=dict)
    stopped: dict[str, float] = field(default_factory=dict)
    meter: BusyMeter = field(default_factory=BusyMeter)
    has_worked: bool = False
    idle_from: float | None = None
    idle_counted: float = 0.0
    idle_unbilled: float = 0.0
    idle_unbilled_from: datetime | None = None
    last_used: float = 0.0
    seen: float = 0.0
    probe: asyncio.Task[None] | None = None
    askers: deque[asyncio.Future[None]] = field(default_factory=deque)
    is_dirty: bool = False
    written_news: tuple[bool, bool, bool] = (False, False, False)
    written: float = float("-inf")

    @property
    def name(self) -> str:
        return self.worker.name

    @property
    def asks(self) -> bool:
        """Whether it takes its jobs itself."""
        return self.protocol is Protocol.RUNPOD

    @property
    def is_going(self) -> bool:
        return self.worker.phase in GOING

    @property
    def is_usable(self) -> bool:
        """Whether jobs may be sent to it."""
        return (
            self.protocol is Protocol.HTTP and not self.is_suspect and not self.is_going and self.ready_at is not None
        )

    @property
    def has_room(self) -> bool:
        return len(self.cards) < self.concurrency

    def news(self, now: float) -> tuple[bool, bool, bool]:
        """What the reconciler acts on: ready, idle for a while, drained. Between two jobs a worker is not idle."""
        is_idle = self.idle_from is not None and now - self.idle_from >= IDLE_SECONDS
        return self.ready_at is not None, is_idle, self.drained_at is not None

    def idle_begins(self, now: float, at: datetime) -> None:
        self.idle_from, self.idle_since, self.idle_counted = now, at, 0.0

    def idle_ends(self, now: float, at: datetime, timeout_seconds: float) -> None:
        self.count_idle(now, at, timeout_seconds)
        self.idle_from, self.idle_since = None, None

    def count_idle(self, now: float, at: datetime, timeout_seconds: float) -> None:
        """Idle time behind a job is billed, up to the deployment's idle timeout."""
        if self.idle_from is None or not self.has_worked:
            return
        total = min(now - self.idle_from, timeout_seconds)
        if total > self.idle_counted:
            self.idle_unbilled_from = self.idle_unbilled_from or at
            self.idle_unbilled += total - self.idle_counted
            self.idle_counted = total

    def note_open(self, at: datetime) -> None:
        """It said something."""
        if self.opened_at is None:
            self.opened_at, self.is_dirty = at, True

    def restore(self, recorded: WorkerActivityRow, at: datetime, now: float) -> None:
        """Know what an earlier dispatcher knew."""
        self.protocol = Protocol(recorded.protocol) if recorded.protocol else None
        self.ready_at, self.boot_ms, self.drained_at = recorded.ready_at, recorded.boot_ms, recorded.drained_at
        self.last_seen_at, self.opened_at = recorded.last_seen_at, recorded.opened_at
        if self.ready_at is not None and self.ready_at < self.worker.created_at:  # of one before it, made anew since
            self.opened_at = self.ready_at = self.boot_ms = self.drained_at = None
        if self.ready_at is not None:
            self.idle_begins(now, recorded.idle_since or at)
        self.written_news = self.news(now)

    def row(self) -> WorkerActivityRow:
        return WorkerActivityRow(
            handler_id=self.handler_id, worker=self.name, protocol=self.protocol or "", opened_at=self.opened_at,
            ready_at=self.ready_at,
            idle_since=self.idle_since, last_seen_at=self.last_seen_at, in_flight=len(self.cards),
            drained_at=self.drained_at, boot_ms=self.boot_ms,
        )  # fmt: skip


@dataclass(eq=False)
class HandlerEntry:
    """One handler deployment.

    Attributes:
        cards: its jobs that are not over and known here, waiting ones too.
        has_more: there are waiting jobs in the store that are not in `queue`.
        wake_recorded: when the reconciler was last told that jobs wait (monotonic).
    """

    id: str
    org_id: str
    spec: HandlerSpec
    generation: int = 1
    phase: HandlerPhase = HandlerPhase.PROVISIONING
    phase_reason: str = ""
    suspended_reason: str = ""
    is_deleting: bool = False
    fingerprint: str = ""
    token: str = field(default="", repr=False)
    workers: dict[str, WorkerEntry] = field(default_factory=dict)
    queue: CardQueue = field(default_factory=CardQueue)
    cards: dict[str, Card] = field(default_factory=dict)
    has_more: bool = False
    is_refilling: bool = False
    wants_refill_again: bool = False
    wake_recorded: float = float("-inf")

    @property
    def running(self) -> int:
        """Jobs that workers have."""
        return sum(len(worker.cards) for worker in self.workers.values())

    def free_worker(self) -> WorkerEntry | None:
        """A worker over HTTP that has room: the least busy, of equals the one used last, so that others stay idle."""
        free = [w for w in self.workers.values() if w.is_usable and w.has_room]
        return min(free, key=lambda w: (len(w.cards), -w.last_used)) if free else None

    def asker(self) -> asyncio.Future[None] | None:
        """A worker that asks for a job right now."""
        for worker in self.workers.values():
            while worker.askers:
                asker = worker.askers.popleft()
                if not asker.done() and not worker.is_going:
                    return asker
        return None

    @property
    def has_usable_worker(self) -> bool:
        return any(
            w.is_usable or (w.protocol is Protocol.RUNPOD and not w.is_going and w.ready_at is not None)
            for w in self.workers.values()
        )


class Roster:
    """All handler deployments that are not gone, by id and by slug."""

    def __init__(self) -> None:
        self._by_id: dict[str, HandlerEntry] = {}
        self._by_slug: dict[tuple[str, str], str] = {}

    def __iter__(self) -> Iterator[HandlerEntry]:
        return iter(list(self._by_id.values()))

    def get(self, handler_id: str) -> HandlerEntry | None:
        return self._by_id.get(handler_id)

    def find(self, org_id: str, slug_or_id: str) -> HandlerEntry | None:
        """By slug or by id, in one organisation."""
        entry = self._by_id.get(self._by_slug.get((org_id, slug_or_id), slug_or_id))
        return entry if entry is not None and entry.org_id == org_id else None

    def put(self, entry: HandlerEntry) -> None:
        self.forget_slug(entry.id)
        self._by_id[entry.id] = entry
        self._by_slug[entry.org_id, entry.spec.slug] = entry.id

    def remove(self, handler_id: str) -> HandlerEntry | None:
        self.forget_slug(handler_id)
        return self._by_id.pop(handler_id, None)

    def forget_slug(self, handler_id: str) -> None:
        for key in [k for k, known in self._by_slug.items() if known == handler_id]:
            del self._by_slug[key]

    def ids(self) -> set[str]:
        return set(self._by_id)
