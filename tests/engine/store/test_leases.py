"""Leases: one holder, growing tokens, and fences that close by themselves."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from engine.model.errors import StaleLease
from engine.store import leases
from engine.store.database import Database
from engine.store.leases import Lease, LeaseFence
from tests.fakes.clock import FakeClock


def take(database: Database, owner: str, clock: FakeClock, name: str = "stack:s") -> Lease | None:
    with database.write() as session:
        return leases.acquire(session, name, owner, 30.0, clock.now())


def test_token_grows_with_every_holder(database: Database, clock: FakeClock) -> None:
    first = take(database, "w1", clock)
    assert first is not None and first.token == 1
    assert take(database, "w2", clock) is None
    clock.advance(30)
    second = take(database, "w2", clock)
    assert second is not None and second.token == 2
    with database.write() as session:
        assert leases.renew(session, first, 30, clock.now()) is None
        assert not leases.is_held(session, first, clock.now())
        assert leases.is_held(session, second, clock.now())
        leases.release(session, first, clock.now())
        assert leases.is_held(session, second, clock.now()), "a lost lease cannot be given back"
        leases.release(session, second, clock.now())
    third = take(database, "w3", clock)
    assert third is not None and third.token == 3


def test_renewal_prolongs_only_what_has_not_run_out(database: Database, clock: FakeClock) -> None:
    lease = take(database, "w1", clock)
    assert lease is not None
    clock.advance(20)
    with database.write() as session:
        renewed = leases.renew(session, lease, 30, clock.now())
    assert renewed is not None and renewed.token == lease.token
    clock.advance(30)
    with database.write() as session:
        assert leases.renew(session, renewed, 30, clock.now()) is None


def test_one_of_many_gets_the_lease_when_they_race(database: Database, clock: FakeClock) -> None:
    barrier = threading.Barrier(8)

    def race(number: int) -> Lease | None:
        barrier.wait(60)
        return take(database, f"w{number}", clock)

    for round_ in range(5):
        with ThreadPoolExecutor(8) as pool:
            won = [lease for lease in pool.map(race, range(8)) if lease is not None]
        assert [lease.token for lease in won] == [round_ + 1]
        clock.advance(31)


def test_a_dead_process_loses_everything_at_once(database: Database, clock: FakeClock) -> None:
    take(database, "w1", clock, leases.executor_lease("w1"))
    take(database, "w1", clock, "stack:a")
    take(database, "w2", clock, leases.executor_lease("w2"))
    with database.write() as session:
        assert leases.live_executors(session, clock.now()) == {"w1", "w2"}
        assert leases.expire_executor(session, "w1", clock.now()) == 2
        assert leases.live_executors(session, clock.now()) == {"w2"}
        assert leases.is_executor_dead(session, "w1", clock.now())
        assert not leases.is_executor_dead(session, "root@laptop", clock.now())
    assert take(database, "w2", clock, "stack:a") is not None


def test_fence_closes_by_itself_and_stays_closed(clock: FakeClock) -> None:
    lease = Lease("stack:s", "w1", 7, clock.now())
    dead = {"w0"}
    fence = LeaseFence(lease, deadline=30.0, monotonic=clock.monotonic, is_executor_dead=dead.__contains__)
    fence.check()
    assert fence.token == 7
    assert fence.holder_is_dead("w0") and fence.holder_is_dead("w1") and not fence.holder_is_dead("w2")
    clock.advance(29)
    fence.extend(lease, 59.0)
    clock.advance(29)
    fence.check()
    clock.advance(2)  # the process was stopped; nobody renewed
    with pytest.raises(StaleLease, match="token 7"):
        fence.check()
    fence.lose()
    fence.extend(lease, 1000.0)
    with pytest.raises(StaleLease):
        fence.check()
