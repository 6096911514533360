"""How much an organisation may have waiting. Counts the store every few seconds, what this process accepts at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass

from sqlalchemy.exc import SQLAlchemyError

from engine.model.clock import Clock
from engine.model.errors import RateLimited, TooLarge
from engine.store import jobs
from engine.store.database import Database

FRESH_SECONDS = 5.0
QUIET_SECONDS = 60.0
"""How long a count is believed that was far below the limits: counting a long queue is not free."""

SURE_SECONDS = 0.5
"""Nobody is refused by a count older than this: what was admitted since may have been done since, too."""

QUIET_SHARE = 0.25
_MOST_KNOWN = 50_000


@dataclass(frozen=True)
class BacklogLimits:
    """What one organisation may have waiting, all of its deployments together; 0: as much as it likes."""

    jobs: int = 0
    input_bytes: int = 0


@dataclass
class _Count:
    jobs: int
    input_bytes: int
    at: float


class Backlog:
    """Refuses what would pass the limits. Other gateways' jobs are seen with the next count."""

    def __init__(self, database: Database, clock: Clock, limits: BacklogLimits) -> None:
        self._database = database
        self._clock = clock
        self._limits = limits
        self._known: dict[str, _Count] = {}
        self._counting: dict[str, asyncio.Task[None]] = {}

    async def admit(self, org_id: str, handler_ids: Callable[[], Collection[str]], input_bytes: int) -> None:
        """Count one job more.

        Args:
            handler_ids: the organisation's deployments.

        Raises:
            RateLimited: so many jobs wait already.
            TooLarge: what waits, and this one, are too much to keep.
        """
        if not (self._limits.jobs or self._limits.input_bytes):
            return
        known = self._known.get(org_id)
        if known is None or self._is_old(known):
            await self._count(org_id, handler_ids)
            known = self._known[org_id]
        if self._is_full(known, input_bytes) and self._clock.monotonic() - known.at >= SURE_SECONDS:
            await self._count(org_id, handler_ids)
            known = self._known[org_id]
        if self._limits.jobs and known.jobs >= self._limits.jobs:
            raise RateLimited(
                f"{known.jobs} jobs of your organisation wait already, {self._limits.jobs} may: wait until some have "
                "ended, raise workersMax, or end what is not wanted with POST /v1/gpu/{slug}/purge-queue",
                retry_after_seconds=int(FRESH_SECONDS), limit=self._limits.jobs,
            )  # fmt: skip
        if self._limits.input_bytes and known.input_bytes + input_bytes > self._limits.input_bytes:
            raise TooLarge(
                f"{known.input_bytes} bytes wait as inputs of your organisation's jobs already, "
                f"{self._limits.input_bytes} may: put large inputs into storage (POST /v1/storage/upload) and send "
                "their URL, or wait until some jobs have ended",
                limit=self._limits.input_bytes,
            )  # fmt: skip
        known.jobs += 1
        known.input_bytes += input_bytes

    def _is_full(self, known: _Count, input_bytes: int) -> bool:
        too_many = self._limits.jobs and known.jobs >= self._limits.jobs
        return bool(
            too_many or (self._limits.input_bytes and known.input_bytes + input_bytes > self._limits.input_bytes)
        )

    def _is_old(self, known: _Count) -> bool:
        jobs_share = known.jobs / self._limits.jobs if self._limits.jobs else 0.0
        bytes_share = known.input_bytes / self._limits.input_bytes if self._limits.input_bytes else 0.0
        is_quiet = max(jobs_share, bytes_share) < QUIET_SHARE
        return self._clock.monotonic() - known.at >= (QUIET_SECONDS if is_quiet else FRESH_SECONDS)

    async def _count(self, org_id: str, handler_ids: Callable[[], Collection[str]]) -> None:
        """One count at a time for each organisation, whoever waits for it."""
        task = self._counting.get(org_id)
        if task is None:
            task = self._counting[org_id] = asyncio.ensure_future(self._look(org_id, list(handler_ids())))
            task.add_done_callback(lambda _: self._counting.pop(org_id, None))
        await asyncio.shield(task)

    async def _look(self, org_id: str, handler_ids: list[str]) -> None:
        try:
            waiting, size = await asyncio.to_thread(self._read, handler_ids)
        except SQLAlchemyError:  # the job itself will say that the database does not answer
            waiting, size = 0, 0
        if len(self._known) > _MOST_KNOWN:
            self._known.clear()
        self._known[org_id] = _Count(waiting, size, self._clock.monotonic())

    def _read(self, handler_ids: list[str]) -> tuple[int, int]:
        with self._database.read() as session:
            return jobs.backlog(session, handler_ids)
