"""The shared account of calls to a cloud."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlmodel import select

from engine.model.budget import Priority
from engine.model.clock import SystemClock
from engine.store.calls import SharedCallBudget, Window, account_of
from engine.store.database import Database
from engine.store.tables import CallWindowRow
from tests.fakes.clock import FakeClock

WINDOWS = (Window("minute", 60, 50), Window("hour", 3600, 200))  # 40 and 160 calls at the 80 % share


class HeldClock(FakeClock):
    """A clock whose sleepers wait until they are woken."""

    def __init__(self) -> None:
        super().__init__()
        self.sleeping = 0
        self._woken = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.sleeping += 1
        await self._woken.wait()
        self.sleeping -= 1

    def wake_all(self) -> None:
        woken, self._woken = self._woken, asyncio.Event()
        woken.set()


def budget(database: Database, clock: FakeClock, block: int = 8) -> SharedCallBudget:
    return SharedCallBudget(database, "account", clock, windows=WINDOWS, block=block)


async def take(from_: SharedCallBudget, priority: Priority, calls: int) -> None:
    for _ in range(calls):
        await from_.acquire(priority)


async def test_deletes_may_use_what_creates_may_not(database: Database, clock: FakeClock) -> None:
    shared = budget(database, clock, block=1)
    await take(shared, Priority.CREATE, 34)  # 85 % of 40
    began = clock.monotonic()
    await take(shared, Priority.READ, 4)
    await take(shared, Priority.DELETE, 2)
    assert clock.monotonic() == began, "none of them had to wait"
    await take(shared, Priority.DELETE, 1)
    assert clock.monotonic() >= 60, "the minute is used up: even a delete waits for the next one"


async def test_a_create_waits_for_the_next_window(database: Database, clock: FakeClock) -> None:
    shared = budget(database, clock)
    await take(shared, Priority.CREATE, 34)
    await take(shared, Priority.CREATE, 1)
    assert 60 <= clock.monotonic() <= 61


async def test_processes_share_one_account(database: Database, clock: FakeClock) -> None:
    first, second = budget(database, clock, block=1), budget(database, clock, block=1)
    await take(first, Priority.DELETE, 20)
    await take(second, Priority.DELETE, 20)
    assert clock.monotonic() == 0
    await take(first, Priority.DELETE, 1)
    assert clock.monotonic() >= 60


async def test_blocks_save_writes_but_not_limits(database: Database, clock: FakeClock) -> None:
    shared = budget(database, clock, block=8)
    await take(shared, Priority.DELETE, 9)
    with database.read() as session:
        used = {row.name.split(":")[1]: row.calls for row in session.exec(select(CallWindowRow)).all()}
    assert used == {"minute": 16, "hour": 16}


async def test_the_hour_counts_too(database: Database, clock: FakeClock) -> None:
    shared = budget(database, clock, block=1)
    await take(shared, Priority.DELETE, 160)
    assert 180 <= clock.monotonic() < 300
    await take(shared, Priority.DELETE, 1)
    assert clock.monotonic() >= 3600


async def test_nobody_calls_while_the_cloud_says_wait(store: Database, clock: FakeClock) -> None:
    shared = budget(store, clock)
    await take(shared, Priority.READ, 1)
    shared.observe(limit=250, remaining=0, retry_after_seconds=17)
    await take(shared, Priority.DELETE, 1)
    assert 17 <= clock.monotonic() <= 18


async def test_a_call_needs_no_waiting_on_a_real_clock(store: Database) -> None:
    async with asyncio.timeout(30):
        await take(SharedCallBudget(store, "account", SystemClock()), Priority.CREATE, 3)


async def test_a_waiting_delete_goes_before_a_waiting_create(store: Database) -> None:
    clock = HeldClock()
    shared = budget(store, clock, block=1)
    await take(shared, Priority.DELETE, 40)
    order: list[Priority] = []

    async def wait(priority: Priority) -> None:
        await shared.acquire(priority)
        order.append(priority)

    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        for priority in (Priority.CREATE, Priority.READ, Priority.DELETE, Priority.CREATE):
            group.create_task(wait(priority))
        while clock.sleeping < 4:  # noqa: ASYNC110  the fake has no event for "everybody sleeps"
            await asyncio.sleep(0)
        clock.advance(61)
        while len(order) < 4:
            clock.wake_all()
            await asyncio.sleep(0)
    assert order == [Priority.DELETE, Priority.READ, Priority.CREATE, Priority.CREATE]


def test_the_limit_holds_when_threads_race(database: Database, clock: FakeClock) -> None:
    """Each thread has an event loop of its own, as stack operations do."""
    budgets = [budget(database, clock, block=3) for _ in range(4)]

    def drain(from_: SharedCallBudget) -> int:
        return sum(from_._take_block(Priority.DELETE) for _ in range(20))

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(drain, budgets)) == 40


def test_an_account_is_named_without_its_token() -> None:
    assert account_of("https://api", "dop_v1_secret") != account_of("https://api", "dop_v1_other")
    assert "secret" not in account_of("https://api", "dop_v1_secret")


@pytest.mark.parametrize("priority", list(Priority))
async def test_every_priority_gets_through_at_last(store: Database, clock: FakeClock, priority: Priority) -> None:
    shared = budget(store, clock)
    await take(shared, priority, 100)
    assert clock.monotonic() >= 120
