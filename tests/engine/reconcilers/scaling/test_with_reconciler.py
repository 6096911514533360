"""The autoscaler and the reconciler together, on one database: who decides the count, and who makes it true."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from engine.model.deployment import Scaling
from engine.model.errors import StackError
from engine.reconcilers.scaling.apply import ScalingApplier
from engine.reconcilers.scaling.autoscaler import Autoscaler
from engine.reconcilers.scaling.scrape import AgentMeter, Scraper
from engine.reconcilers.scaling.snapshot import Policy
from engine.store import deployments, traffic, usage
from engine.store.sealing import Sealer
from engine.store.traffic_tables import TrafficRow

SCALES = Scaling(max_replicas=2, scale_to_zero=True, idle_timeout_seconds=60)
Check = Callable[..., list[int]]


@pytest.fixture
def scaler(rig: Any) -> Autoscaler:
    sealer = Sealer(b"x" * 32)
    applier = ScalingApplier(rig.database, rig.clock, sealer, rig.fence, lambda *_: {})
    policy = Policy(cooldown=timedelta(0), down_cooldown=timedelta(0))
    scraper = Scraper(rig.database, rig.clock, sealer, AgentMeter(), budget_seconds=10)  # nobody is asked here
    return Autoscaler(rig.database, rig.clock, scraper, applier, policy)


@pytest.fixture
def check(rig: Any, scaler: Autoscaler) -> Check:
    """Three checks with this traffic, and what they changed."""

    def three(**said: int) -> list[int]:
        changed: list[int] = []
        for _ in range(3):
            now = rig.clock.advance(30)
            with rig.database.write() as session:
                row = TrafficRow(deployment_id="dep_1", gateway="gw", updated_at=now, last_request_at=now, **said)
                traffic.record_now(session, [row])
            changed += [getattr(done, "to", 0) for done in scaler.check()]
        return changed

    return three


async def test_from_load_to_two_to_one_to_none_and_back(rig: Any, scaler: Autoscaler, check: Check) -> None:
    rig.create(scaling=SCALES)
    assert scaler.check() == scaler.put_idle_to_sleep() == [], "it is not there yet"
    await rig.settle()
    assert check(waiting=9) == [2]
    rig.clock.advance(600)
    assert scaler.put_idle_to_sleep() == [], "the second one is not up"
    await rig.settle()
    assert (rig.row().phase, len(rig.cloud.things)) == ("active", 2)
    assert check(in_flight=0) == [1]
    await rig.settle()
    assert (rig.row().phase, len(rig.cloud.things)) == ("active", 1)
    rig.clock.advance(61)
    assert len(scaler.put_idle_to_sleep()) == 1
    await rig.settle()
    assert (rig.row().phase, rig.cloud.things) == ("asleep", {})
    with rig.database.write() as session:
        assert deployments.wake(session, "dep_1", rig.clock.now())
    await rig.settle(seconds=1)
    assert scaler.put_idle_to_sleep() == [], "awake a moment ago, though the last request is long ago"
    await rig.settle()
    assert (rig.row().phase, len(rig.cloud.things)) == ("active", 1)


async def test_replica_that_cannot_be_had_is_given_up_and_never_keeps_awake(
    rig: Any, scaler: Autoscaler, check: Check
) -> None:
    rig.create(scaling=SCALES)
    await rig.settle()
    rig.stacks.failures = [StackError("error: no capacity in this region")] * 100
    assert check(waiting=9) == [2]
    await rig.settle(seconds=30)
    assert check(waiting=9) == [], "no third one meanwhile"
    rig.clock.advance(61)
    assert len(scaler.put_idle_to_sleep()) == 1
    with rig.database.write() as session:
        assert deployments.wake(session, "dep_1", rig.clock.now())
    rig.stacks.failures = []
    await rig.settle()
    assert (rig.row().phase, len(rig.cloud.things)) == ("active", 1)
    rig.stacks.failures = [StackError("error: no capacity in this region")] * 100
    assert check(waiting=9) == [2]
    await rig.settle(seconds=30)
    assert check(in_flight=1) == [1]
    rig.stacks.failures = []
    await rig.settle(seconds=130)
    assert (rig.row().phase, len(rig.cloud.things)) == ("active", 1)


async def test_replica_that_never_gets_ready_is_not_asked_for_again_and_again(rig: Any, check: Check) -> None:
    rig.create(scaling=SCALES)
    await rig.settle()
    rig.probe.silent = {f"https://127.0.0.1:{n}" for n in range(2, 9)}
    assert check(waiting=9) == [2]
    await rig.settle(seconds=1300, step=100)
    assert (rig.row().phase, len(rig.cloud.things)) == ("degraded", 1)
    assert check(in_flight=1) == [1], "what is there would do"
    await rig.settle()
    assert rig.row().phase == "active"
    assert check(waiting=9) == [], "the pause after the boot timeout goes on"
    rig.clock.advance(1200)
    assert check(waiting=9) == [2]
    await rig.settle(seconds=1300, step=100)
    failures = rig.row().machine_failures
    assert (failures["cause"], failures["count"], rig.row().machines_made) == ("not_ready", 2, 3)
    rig.edit(replicas=2)
    rig.probe.silent = set()
    await rig.settle()
    assert (rig.row().phase, len(rig.cloud.things)) == ("active", 2)
    with rig.database.read() as session:
        spans = {u.replica: (u.started_at, u.ended_at) for u in usage.for_deployment(session, "dep_1")}
    assert [spans[name][0] == spans[name][1] for name in sorted(spans)] == [False, True, True, False]
