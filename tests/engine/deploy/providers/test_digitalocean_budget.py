"""The in-process call budget: limits, order of waiting calls, and what the server says."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from engine.deploy.providers.digitalocean.budget import TokenBucketBudget
from engine.model.budget import Priority
from tests.fakes.clock import FakeClock


async def test_a_burst_is_free_and_then_calls_are_paced(clock: Any) -> None:
    budget = TokenBucketBudget(clock=clock, limit_per_minute=250, share=0.8)
    for _ in range(200):
        await budget.acquire(Priority.READ)
    assert clock.monotonic() == 0
    for _ in range(10):
        await budget.acquire(Priority.READ)
    assert clock.monotonic() == pytest.approx(10 * 60 / 200, rel=0.01)


async def test_the_hour_is_kept_too(clock: Any) -> None:
    budget = TokenBucketBudget(clock=clock, limit_per_minute=1000, limit_per_hour=100, share=1.0)
    for _ in range(110):
        await budget.acquire(Priority.CREATE)
    assert clock.monotonic() == pytest.approx(10 * 36, rel=0.01)


class SteppedClock(FakeClock):
    """Sleepers wait until the test lets time pass."""

    async def sleep(self, seconds: float) -> None:
        until = self.monotonic() + seconds
        while self.monotonic() < until:  # noqa: ASYNC110 - the test moves time, nothing signals
            await asyncio.sleep(0)


async def test_deletes_go_before_reads_and_creates() -> None:
    clock = SteppedClock()
    budget = TokenBucketBudget(clock=clock, limit_per_minute=1, share=1.0)
    await budget.acquire(Priority.CREATE)
    served: list[Priority] = []

    async def call(priority: Priority) -> None:
        await budget.acquire(priority)
        served.append(priority)

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        for priority in (Priority.CREATE, Priority.READ, Priority.DELETE, Priority.DELETE):
            group.create_task(call(priority))
        while len(served) < 4:
            await asyncio.sleep(0)
            clock.advance(1)
    assert served == [Priority.DELETE, Priority.DELETE, Priority.READ, Priority.CREATE]


async def test_a_429_closes_the_door_for_as_long_as_it_says(clock: Any) -> None:
    budget = TokenBucketBudget(clock=clock)
    budget.observe(limit=5000, remaining=4000, retry_after_seconds=30)
    await budget.acquire(Priority.DELETE)
    assert clock.monotonic() == pytest.approx(30)


async def test_others_use_of_the_token_counts(clock: Any) -> None:
    budget = TokenBucketBudget(clock=clock, share=0.8)
    budget.observe(limit=5000, remaining=1000, retry_after_seconds=None)
    await budget.acquire(Priority.READ)
    assert clock.monotonic() > 0.5, "our share of the hour is used up"


async def test_a_cancelled_wait_leaves_the_queue(clock: Any) -> None:
    budget = TokenBucketBudget(clock=clock, limit_per_minute=1, share=1.0)
    await budget.acquire(Priority.READ)
    waiting = asyncio.create_task(budget.acquire(Priority.DELETE))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await asyncio.wait_for(budget.acquire(Priority.CREATE), 60)
