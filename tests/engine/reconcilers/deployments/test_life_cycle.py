"""A deployment's life on a real database: what is recorded, asked and guarded."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from engine.billing.meter import deployment_cost
from engine.controller.result import Done, Failed
from engine.model.deployment import ReplicaPhase, UpdateKind, UpdateState
from engine.model.errors import StackError, StaleLease
from engine.model.stack import owner_tag, stack_name
from engine.reconcilers.deployments.decide import decide
from engine.reconcilers.deployments.observe import observe
from engine.store import changes, leases, updates, usage
from tests.fakes.cloud import INSTALLATION


async def test_from_created_to_gone(rig: Any) -> None:
    rig.create(replicas=2)
    created_at = rig.clock.now()
    await rig.settle()
    row = rig.row()
    assert row.phase == "active" and row.observed_generation == 1
    assert [(r["name"], r["phase"], r["endpoint"]) for r in row.replicas] == [
        ("r1-0", "ready", "https://127.0.0.1:1"),
        ("r1-1", "ready", "https://127.0.0.1:2"),
    ]
    rig.clock.advance(3600 - (rig.clock.now() - created_at).total_seconds())
    rig.delete()
    await rig.settle()
    row = rig.row()
    assert row.phase == "inactive" and row.deleted_at is not None and row.replicas == []
    assert rig.cloud.things == {} and rig.stacks.state == {}
    with rig.database.read() as session:
        assert str(deployment_cost(session, "dep_1", rig.clock.now())) == "8.82"
    assert await rig.reconciler.look("dep_1") is None


async def test_workers_are_asked_with_the_deployments_own_credentials(rig: Any) -> None:
    rig.create()
    await rig.settle()
    endpoint, credentials = rig.probe.asked[0]
    assert endpoint == "https://127.0.0.1:1"
    assert (credentials.token, credentials.fingerprint) == ("wt_1", "00" * 32)
    assert rig.requests[0].identity.token == "wt_1" and rig.requests[0].installation_id == "inst_1"


async def test_outputs_beyond_the_contract_are_not_stored(rig: Any) -> None:
    rig.create()
    await rig.settle()
    with rig.database.read() as session:
        last = updates.last_succeeded(session, "dep_1", [UpdateKind.UP])
    assert last is not None and "token" not in last.outputs and last.outputs["generation"] == 1


async def test_an_operation_uses_the_newest_spec(rig: Any) -> None:
    rig.create()
    await rig.reconciler.look("dep_1")
    rig.edit(replicas=3)
    await rig.reconciler.look("dep_1")
    rig.work()
    await rig.settle()
    assert len(rig.cloud.things) == 3
    assert [kind for kind, _, _ in rig.stacks.calls] == ["up"], "the second generation needs no second operation"
    assert rig.row().observed_generation == 2


async def test_what_failed_attempts_made_is_removed_when_they_are_given_up(rig: Any) -> None:
    row = rig.create()
    rig.stacks.failures = [StackError("error: half way")] * 12
    rig.stacks.state[stack_name(row.id)] = {"r1-0": "77"}
    rig.cloud.add("droplet", "77", owner_tag(row.id), INSTALLATION)
    await rig.settle(seconds=1200, step=20)
    assert rig.row().phase == "failed" and rig.cloud.things == {}
    assert [kind for kind, _, _ in rig.stacks.calls] == ["up"] * 12 + ["destroy"]
    rig.delete()
    await rig.settle()
    assert rig.row().phase == "inactive"


async def test_a_failure_is_recorded_with_its_reason(rig: Any) -> None:
    rig.stacks.failures = [StackError("digitalocean:index:Droplet (r1-0): the cloud is away")]
    rig.create()
    await rig.reconciler.look("dep_1")
    assert rig.work() == [Failed("stack_operation_failed", "digitalocean:index:Droplet (r1-0): the cloud is away")]
    await rig.reconciler.look("dep_1")
    row = rig.row()
    assert (row.phase, row.failures) == ("provisioning", 1) and row.last_failure_at is not None
    message = {c["type"]: c["message"] for c in row.conditions}
    assert message["StackUpdated"] == "digitalocean:index:Droplet (r1-0): the cloud is away"


async def test_a_decision_made_from_an_old_row_is_dropped(rig: Any) -> None:
    rig.create()
    with rig.database.read() as session:
        seen = observe(session, "dep_1")
    assert seen is not None
    actions = decide(seen.snapshot, now=rig.clock.now(), new_ids=["a", "b", "c"])
    rig.delete()
    outcome = await rig.applier.apply(seen, actions)
    assert outcome.look_again and rig.queue == []
    with rig.database.read() as session:
        assert updates.open_for_stack(session, "dep-1") is None


async def test_nothing_is_recorded_without_the_lease(rig: Any) -> None:
    rig.create()
    rig.fence.error = StaleLease("taken over")
    with pytest.raises(StaleLease):
        await rig.reconciler.look("dep_1")
    assert rig.row().conditions == [] and rig.queue == []


async def test_steady_health_checks_are_silent_in_the_change_feed(rig: Any) -> None:
    rig.create()
    await rig.settle(seconds=30)
    with rig.database.read() as session:
        before = changes.latest(session)
    asked = len(rig.probe.asked)
    await rig.settle(seconds=30)
    assert len(rig.probe.asked) - asked == 6
    with rig.database.read() as session:
        assert changes.latest(session) == before


async def test_a_silent_replica_leaves_the_routes_at_the_third_missed_check(rig: Any) -> None:
    rig.create(replicas=2)
    await rig.settle(seconds=20)
    rig.probe.silent = {"https://127.0.0.1:2"}
    await rig.settle(seconds=20)
    row = rig.row()
    assert row.phase == "degraded"
    assert [r["phase"] for r in row.replicas] == [ReplicaPhase.READY, ReplicaPhase.UNHEALTHY]
    assert [kind for kind, _, _ in rig.stacks.calls] == ["up"], "it may come back"


async def test_a_replica_that_is_to_go_is_told_to_drain_and_taken_back_when_wanted(rig: Any) -> None:
    rig.create(replicas=2)
    await rig.settle(seconds=5)
    rig.probe.in_flight = {"https://127.0.0.1:1": 1, "https://127.0.0.1:2": 1}
    rig.edit(replicas=1)
    await rig.settle(seconds=5)
    assert [(r["name"], r["phase"], r["in_flight"]) for r in rig.row().replicas if r["phase"] != "ready"] == [
        ("r1-1", "draining", 1)
    ]
    assert set(rig.probe.told) == {("https://127.0.0.1:2", True)} and len(rig.cloud.things) == 2
    rig.edit(replicas=2)
    await rig.settle(seconds=2)
    assert rig.probe.told[-1] == ("https://127.0.0.1:2", False)
    assert [r["phase"] for r in rig.row().replicas] == ["ready", "ready"] and rig.row().phase == "active"
    rig.probe.in_flight = {"https://127.0.0.1:1": 2}
    await rig.settle(seconds=6)
    rig.edit(replicas=1)
    await rig.settle(seconds=5)
    assert list(rig.cloud.things) == ["1"] and [m["name"] for m in rig.row().machines] == ["r1-0"]


async def test_a_machine_the_cloud_says_is_off_gets_a_successor(rig: Any) -> None:
    rig.create()
    await rig.settle(seconds=5)
    rig.probe.silent, rig.cloud.off = {"https://127.0.0.1:1"}, {"1"}
    await rig.settle(seconds=30)
    row = rig.row()
    assert (row.phase, [r["name"] for r in row.replicas], list(rig.cloud.things)) == ("active", ["r1-1"], ["2"])
    with rig.database.read() as session:
        (first, second) = usage.for_deployment(session, "dep_1")
    assert (first.replica, second.replica) == ("r1-0", "r1-1")
    assert first.ended_at is not None and first.ended_at < second.started_at and second.ended_at is None


async def test_a_replacement_is_billed_at_its_own_price_from_the_hand_over(rig: Any) -> None:
    rig.create()
    await rig.settle(seconds=10)
    rig.edit(gpu_type="mi300x")
    await rig.settle(seconds=20)
    with rig.database.read() as session:
        rows = usage.for_deployment(session, "dep_1")
    assert [(r.replica, r.gpu_type, r.hourly_rate_usd) for r in rows] == [
        ("r1-0", "h100", "4.41"),
        ("r2-1", "mi300x", "2.59"),
    ]
    assert rows[0].ended_at == rows[1].started_at


async def test_it_is_not_gone_while_the_cloud_does_not_answer(rig: Any) -> None:
    rig.create()
    await rig.settle()
    rig.delete()
    await rig.reconciler.look("dep_1")
    rig.work()
    rig.cloud.unreachable = True
    await rig.settle()
    assert rig.row().phase == "teardown"
    rig.cloud.unreachable = False
    await rig.settle()
    assert rig.row().phase == "inactive"


async def test_leftovers_the_stack_does_not_know_are_deleted(rig: Any) -> None:
    rig.create()
    await rig.settle()
    rig.cloud.add("firewall", "fw-1", "stackyard:dep-1")
    rig.cloud.add("droplet", "other", "stackyard:dep-2")
    rig.delete()
    await rig.settle(seconds=20)
    assert rig.row().phase == "inactive"
    assert set(rig.cloud.things) == {"other"}


async def test_an_up_that_has_not_begun_is_skipped_after_a_delete(rig: Any) -> None:
    rig.create()
    await rig.reconciler.look("dep_1")
    rig.delete()
    assert rig.work() == [Failed("cancelled", "dep_1 is being deleted")]
    await rig.settle()
    assert rig.row().phase == "inactive" and rig.stacks.calls == []


async def test_an_operation_taken_over_runs_under_the_higher_token_only(rig: Any) -> None:
    rig.create()
    await rig.reconciler.look("dep_1")
    update, stack = rig.queue[0]

    def interrupt(kind: str) -> None:
        rig.stacks.before_effect = lambda kind: None
        rig.queue[:] = [(update, stack)]
        assert rig.work(token=2) == [Done()]

    rig.stacks.before_effect = interrupt
    rig.work(token=1)
    with rig.database.read() as session:
        row = updates.get(session, update)
    assert row is not None and (row.state, row.lease_token, row.attempts) == (UpdateState.SUCCEEDED, 2, 2)
    rig.queue[:] = [(update, stack)]
    assert rig.work(token=3) == [Done()], "it has ended: nothing is done again"
    assert len(rig.stacks.calls) == 2


async def test_two_deployments_do_not_touch_each_other(rig: Any) -> None:
    rig.create("dep_1")
    rig.create("dep_2", gpu_type="mi300x")
    await rig.settle("dep_1", "dep_2")
    rig.delete("dep_1")
    await rig.settle("dep_1", "dep_2")
    assert (rig.row("dep_1").phase, rig.row("dep_2").phase) == ("inactive", "active")
    with rig.database.read() as session:
        assert [u.hourly_rate_usd for u in usage.open_for_deployment(session, "dep_2")] == ["2.59"]


async def test_the_loop_follows_the_feed_and_its_period(rig: Any) -> None:
    """Created after the loop began: the change feed brings it; work is done as it is submitted."""
    loop = asyncio.create_task(rig.reconciler.run())
    rig.create()
    try:
        async with asyncio.timeout(30):
            while rig.row().phase != "active":
                await asyncio.to_thread(rig.work)
                await asyncio.sleep(0)
            rig.delete()
            while rig.row().phase != "inactive":
                await asyncio.to_thread(rig.work)
                await asyncio.sleep(0)
    finally:
        loop.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loop


async def test_nothing_is_written_under_a_lease_the_database_says_is_gone(rig: Any) -> None:
    before = rig.create()
    with rig.database.write() as session:
        leases.release(session, rig.fence.lease, rig.clock.now())
        leases.acquire(session, "reconcilers", "w2", 60, rig.clock.now())
    rig.fence.check()  # this process has not heard of it yet
    with pytest.raises(StaleLease, match="taken over"):
        await rig.reconciler.look("dep_1")
    assert rig.queue == [] and rig.row().conditions == before.conditions
    with rig.database.read() as session:
        assert updates.all_open(session) == []


async def test_the_loop_ends_when_the_lease_is_lost(rig: Any) -> None:
    rig.create()
    loop = asyncio.create_task(rig.reconciler.run())
    rig.fence.error = StaleLease("taken over")
    async with asyncio.timeout(30):
        with pytest.raises(StaleLease):
            await loop


async def test_a_row_that_cannot_be_read_does_not_stop_the_others(rig: Any) -> None:
    rig.create("dep_1")
    rig.create("dep_2")
    with rig.database.write() as session:
        row = rig.row("dep_1")
        row.spec = {"nonsense": True}
        session.add(row)
    loop = asyncio.create_task(rig.reconciler.run())
    try:
        async with asyncio.timeout(30):
            while rig.row("dep_2").phase != "active":
                await asyncio.to_thread(rig.work)
                await asyncio.sleep(0)
    finally:
        loop.cancel()
        with pytest.raises(asyncio.CancelledError):
            await loop
    assert rig.clock.now() < rig.row("dep_2").created_at + timedelta(hours=1)
