"""A call budget inside one process: two token buckets with the account's limits, deletes first.

Not shared between processes; `engine/store` has the account that is.
"""

from __future__ import annotations

import heapq
from itertools import count

from engine.model.budget import Priority
from engine.model.clock import Clock

WAITING_TURN_SECONDS = 0.05
_WHOLE = 1 - 1e-6  # a token but for rounding; waiting for the rest could take less than the clock can show


class _Bucket:
    """Tokens that refill evenly up to a capacity."""

    def __init__(self, capacity: float, period_seconds: float, now: float) -> None:
        self.capacity = capacity
        self.tokens = capacity
        self._per_second = capacity / period_seconds
        self._filled_at = now

    def fill(self, now: float) -> None:
        self.tokens = min(self.capacity, self.tokens + (now - self._filled_at) * self._per_second)
        self._filled_at = now

    def seconds_to_next(self) -> float:
        return 0.0 if self.tokens >= _WHOLE else (1.0 - self.tokens) / self._per_second


class TokenBucketBudget:
    """DigitalOcean's limits per minute and hour for one token, of which we use a share.

    Waiting calls are served by priority, then in order of arrival.
    """

    def __init__(
        self, *, clock: Clock, limit_per_minute: int = 250, limit_per_hour: int = 5000, share: float = 0.8
    ) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"share must be in (0, 1], not {share}")
        now = clock.monotonic()
        self._clock = clock
        self._share = share
        self._minute = _Bucket(limit_per_minute * share, 60.0, now)
        self._hour = _Bucket(limit_per_hour * share, 3600.0, now)
        self._closed_until = now
        self._queue: list[tuple[Priority, int]] = []
        self._arrivals = count()

    async def acquire(self, priority: Priority) -> None:
        """Wait until it is this call's turn and a token is there."""
        ticket = (priority, next(self._arrivals))
        heapq.heappush(self._queue, ticket)
        try:
            while (wait := self._seconds_until_turn(ticket)) > 0:
                await self._clock.sleep(wait)
            self._minute.tokens -= 1
            self._hour.tokens -= 1
        finally:
            self._queue.remove(ticket)
            heapq.heapify(self._queue)

    def _seconds_until_turn(self, ticket: tuple[Priority, int]) -> float:
        now = self._clock.monotonic()
        self._minute.fill(now)
        self._hour.fill(now)
        wait = max(self._closed_until - now, self._minute.seconds_to_next(), self._hour.seconds_to_next())
        if wait > 0:
            return wait
        return 0.0 if self._queue[0] == ticket else WAITING_TURN_SECONDS

    def observe(self, *, limit: int, remaining: int, retry_after_seconds: float | None) -> None:
        """Others use the token too: never believe in more calls than the server says are left of our share."""
        if limit > 0:
            self._hour.tokens = min(self._hour.tokens, remaining - limit * (1 - self._share))
        if retry_after_seconds is not None:
            self._closed_until = max(self._closed_until, self._clock.monotonic() + retry_after_seconds)
