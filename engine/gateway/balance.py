"""Chooses the replica for a request: the one with the fewest requests in flight. Measures nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from engine.gateway.routes import Upstream
from engine.model.clock import Clock

REST_SECONDS = 2.0
"""A replica that refused a connection is passed over this long, unless there is no other."""


class Balancer:
    """Requests in flight per replica endpoint, and which ones failed just now."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._in_flight: Counter[str] = Counter()
        self._resting_until: dict[str, float] = {}
        self._turn = 0

    def choose(self, upstreams: Sequence[Upstream], tried: Collection[str] = ()) -> Upstream | None:
        """The least busy replica whose endpoint is not in `tried`; equals take turns. None when all were tried."""
        left = [u for u in upstreams if u.endpoint not in tried]
        if not left:
            return None
        now = self._clock.monotonic()
        rested = [u for u in left if self._resting_until.get(u.endpoint, 0.0) <= now] or left
        fewest = min(self._in_flight[u.endpoint] for u in rested)
        least_busy = [u for u in rested if self._in_flight[u.endpoint] == fewest]
        self._turn += 1
        return least_busy[self._turn % len(least_busy)]

    @contextmanager
    def serving(self, upstream: Upstream) -> Iterator[None]:
        """Count a request while the block runs."""
        self._in_flight[upstream.endpoint] += 1
        try:
            yield
        finally:
            self._in_flight[upstream.endpoint] -= 1
            if self._in_flight[upstream.endpoint] <= 0:
                del self._in_flight[upstream.endpoint]

    def failed(self, upstream: Upstream) -> None:
        """A connection to this replica failed: others go first for a moment."""
        now = self._clock.monotonic()
        self._resting_until = {e: until for e, until in self._resting_until.items() if until > now}
        self._resting_until[upstream.endpoint] = now + REST_SECONDS

    def in_flight(self) -> int:
        """Requests in flight to all replicas."""
        return self._in_flight.total()
