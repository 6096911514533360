"""Jobs that are not over, in the memory of the process that dispatches: a card each, and a queue of those that wait."""

from __future__ import annotations

import asyncio
import heapq
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING

from engine.jobs import fairness
from engine.model.job import JobState, Reason, advance
from engine.model.tiers import Tier

if TYPE_CHECKING:
    from engine.jobs.roster import WorkerEntry

KEPT_INPUT_BYTES = 16 * 1024
"""Larger inputs of waiting jobs are read back when they are begun: ten thousand of them must not fill the memory."""


@dataclass(eq=False)
class Card:
    """One job.

    Attributes:
        attempts: how often it was begun, as recorded; with the state what every write is guarded by.
        input: JSON text; None: read it back.
        task: what runs it, for workers over HTTP.
        seat: the worker whose time it takes.
        is_ending: its end is being written; whatever comes now is too late.
        is_returning: that it waits again is being written: its worker was lost, once.
        is_over: this process has nothing to do with it any more.
        news: a partial output was kept, or the job ended.
        waiters: who waits for its end; each gets None, and reads what became of it.
    """

    id: str
    org_id: str
    handler_id: str
    slug: str
    key_id: str
    tier: Tier
    created_at: datetime
    expires_at: datetime
    execution_timeout_ms: int
    input: bytes | None
    dialect: str = "gpu"
    webhook_url_sealed: str = ""
    retry_of: str | None = None
    state: JobState = JobState.QUEUED
    reason: Reason = Reason.DONE
    attempts: int = 0
    worker: str = ""
    pool: str = ""
    protocol: str = ""
    started_at: datetime | None = None
    started_monotonic: float = 0.0
    busy_mark: float = 0.0
    finished_at: datetime | None = None
    execution_ms: int | None = None
    cost_usd: Decimal | None = None
    output: bytes | None = None
    error: str | None = None
    partial_count: int = 0
    partial_bytes: int = 0
    is_ending: bool = False
    is_returning: bool = False
    is_over: bool = False
    task: asyncio.Task[None] | None = None
    seat: WorkerEntry | None = None
    waiters: list[asyncio.Future[None]] = field(default_factory=list)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def due(self) -> tuple[datetime, str]:
        """Its place in a queue."""
        return fairness.due_at(self.tier, self.created_at), self.id

    def advance(self, to: JobState) -> None:
        self.state = advance(self.state, to)

    def tell(self) -> None:
        """Wake who waits for the end."""
        self.is_over = True
        self.news.set()
        waiters, self.waiters = self.waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class CardQueue:
    """Waiting cards, what is due first in front. Removing one is marking it: it falls out when its turn comes."""

    def __init__(self) -> None:
        self._heap: list[tuple[tuple[datetime, str], int, Card]] = []
        self._pushed = 0
        self._waiting: dict[str, Card] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._waiting

    def push(self, card: Card) -> None:
        self._waiting[card.id] = card
        self._pushed += 1  # two cards of one job, as a repeated key makes them, are due at the same time
        heapq.heappush(self._heap, (card.due, self._pushed, card))

    def head(self) -> Card | None:
        """The one whose turn it is."""
        while self._heap:
            card = self._heap[0][2]
            if self._waiting.get(card.id) is card:
                return card
            heapq.heappop(self._heap)
        return None

    def pop(self) -> Card | None:
        """Take the one whose turn it is."""
        card = self.head()
        if card is not None:
            heapq.heappop(self._heap)
            del self._waiting[card.id]
        return card

    def remove(self, card: Card) -> bool:
        """Take one out of turn; False: it does not wait here."""
        if self._waiting.get(card.id) is not card:  # another card of the same job, which its key had made before
            return False
        del self._waiting[card.id]
        return True

    def cards(self) -> list[Card]:
        """All that wait, in no order."""
        return list(self._waiting.values())

    def clear(self) -> None:
        self._heap.clear()
        self._waiting.clear()
