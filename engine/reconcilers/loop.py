"""Looks at every row of one kind on a period and on hints, one look per row at a time. Knows no life cycle."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session

from engine.model.clock import Clock
from engine.model.errors import StaleLease
from engine.model.fence import Fence
from engine.reconcilers.deployments.apply import Outcome
from engine.store import changes
from engine.store.database import Database
from engine.store.novelty import newest_change

FEED_POLL_SECONDS = 0.05
"""How soon an accepted request is looked at; a poll is one index seek."""
CONCURRENT_LOOKS = 32
RETRY_AFTER_ERROR_SECONDS = 5.0
HINTED_AHEAD_SECONDS = 30.0
"""Where there are too many rows for their period, a hint (somebody waits: a wake, a delete) goes before those that are
late by less than this; nobody waits for longer because of hints."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Looked:
    """What one kind of row brings to the loop.

    Attributes:
        kind: as the change feed names it.
        living_ids: every row that is not gone.
        look: one observe, decide, apply; None when the row is gone.
    """

    kind: str
    living_ids: Callable[[Session], Sequence[str]]
    look: Callable[[str], Awaitable[Outcome | None]]


class LookLoop:
    """The loop around observe, decide, apply.

    Args:
        period_seconds: every living row is looked at this often, hint or not.
    """

    def __init__(
        self, database: Database, clock: Clock, fence: Fence, looked: Looked, *, period_seconds: float
    ) -> None:
        self._database = database
        self._clock = clock
        self._fence = fence
        self._looked = looked
        self._period = period_seconds
        self._due: dict[str, float] = {}
        self._looking: dict[str, asyncio.Task[None]] = {}
        self._hinted: set[str] = set()
        self._seq = 0

    async def run(self) -> None:
        """Look until cancelled, or until this process's lease is lost (StaleLease)."""
        self._seq, living = await asyncio.to_thread(self._begin)
        self._due = dict.fromkeys(living, self._clock.monotonic())
        try:
            while True:
                self._fence.check()
                try:
                    for key in await asyncio.to_thread(self._follow):
                        self.hint(key)
                except SQLAlchemyError as err:
                    _log.warning("the change feed could not be read", error=str(err))
                    await self._clock.sleep(1.0)
                self._start_due()
                await self._clock.sleep(FEED_POLL_SECONDS)
        finally:
            for task in self._looking.values():
                task.cancel()
            await asyncio.gather(*self._looking.values(), return_exceptions=True)

    def hint(self, key: str) -> None:
        """Look at a row as soon as possible."""
        ahead = self._clock.monotonic() - HINTED_AHEAD_SECONDS
        self._due[key] = min(self._due.get(key, ahead), ahead)
        if key in self._looking:
            self._hinted.add(key)

    def _start_due(self) -> None:
        now = self._clock.monotonic()
        ready = [key for key, due in self._due.items() if due <= now and key not in self._looking]
        ready.sort(key=self._due.__getitem__)  # what waits longest first: however busy some are, nobody starves
        for key in ready[: max(0, CONCURRENT_LOOKS - len(self._looking))]:
            self._looking[key] = asyncio.create_task(self._look_safely(key))

    async def _look_safely(self, key: str) -> None:
        after: float | None = RETRY_AFTER_ERROR_SECONDS
        try:
            outcome = await self._looked.look(key)
            after = None if outcome is None else self._seconds_until(outcome)
        except StaleLease:
            _log.warning("lease lost, a decision was dropped", key=key)  # `run` ends at its next check
        except Exception:  # noqa: BLE001  the loop's edge: one row that cannot be read must not stop the others
            _log.exception("a row could not be reconciled", kind=self._looked.kind, key=key)
        finally:
            self._looking.pop(key, None)
            if key in self._hinted:
                self._hinted.discard(key)
                after = -HINTED_AHEAD_SECONDS
            if after is None:
                self._due.pop(key, None)
            else:
                self._due[key] = self._clock.monotonic() + after

    def _seconds_until(self, outcome: Outcome) -> float:
        if outcome.look_again:
            return 0.0
        if outcome.wait_until is None:
            return self._period
        return min(self._period, max(0.0, (outcome.wait_until - self._clock.now()) / timedelta(seconds=1)))

    def _begin(self) -> tuple[int, Sequence[str]]:
        with self._database.read() as session:
            return changes.latest(session), self._looked.living_ids(session)

    def _follow(self) -> set[str]:
        if newest_change(self._database) <= self._seq:
            return set()
        with self._database.read() as session:
            rows = changes.since(session, self._seq)
        if rows:
            self._seq = rows[-1].seq or self._seq
        return {row.key for row in rows if row.kind == self._looked.kind}
