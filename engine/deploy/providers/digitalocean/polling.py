"""Waiting for the cloud: look at once, then at growing intervals.

The official provider sleeps 10 s before its first look; a sandbox or a fast delete is done long before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from engine.model.clock import Clock


@dataclass(frozen=True)
class Polling:
    """How long to wait between looks, and for what.

    Attributes:
        first_seconds, factor, longest_seconds: 0.01, 0.025, 0.0625 … 10 s; eight looks in the first ten seconds.
        placement_grace_seconds: how long a Droplet whose creation was accepted may answer 404 before its placement
            counts as failed.
    """

    first_seconds: float = 0.01
    factor: float = 2.5
    longest_seconds: float = 10.0
    placement_grace_seconds: float = 60.0

    def intervals(self) -> Iterator[float]:
        """The waits after each look, without end."""
        wait = self.first_seconds
        while True:
            yield wait
            wait = min(wait * self.factor, self.longest_seconds)


class Waiter:
    """One wait: `await waiter.again()` between looks, False once the deadline has passed."""

    def __init__(self, clock: Clock, polling: Polling, deadline: float) -> None:
        self._clock = clock
        self._intervals = polling.intervals()
        self._deadline = deadline

    async def again(self) -> bool:
        """Wait the next interval, shortened to end at the deadline."""
        left = self._deadline - self._clock.monotonic()
        if left <= 0:
            return False
        await self._clock.sleep(min(next(self._intervals), left))
        return True
