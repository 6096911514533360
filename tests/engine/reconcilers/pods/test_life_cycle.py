"""A pod's life on a real database: what is recorded, placed, paid and guarded."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal

import pytest
from sqlalchemy import Engine, event

from engine.billing import credit
from engine.model.errors import StackError, StaleLease
from engine.reconcilers.pods.decide import decide
from engine.store import budgets, deployments, placements, pods, usage
from engine.store.database import Database
from engine.store.ledger_tables import BudgetRow
from engine.store.tables import UsageIntervalRow
from tests.fakes.clock import START, FakeClock
from tests.fakes.pod_rig import PodRig
from tests.fakes.rows import deployment_row


@pytest.fixture
def rig(store: Database, clock: FakeClock) -> PodRig:
    return PodRig(store, clock)


def intervals(rig: PodRig) -> Sequence[UsageIntervalRow]:
    with rig.database.read() as session:
        return usage.for_deployment(session, "pod_1")


async def test_from_created_over_a_stop_to_gone_with_every_cent(rig: PodRig) -> None:
    rig.create()
    assert rig.books() == (6_400_000, 3_600_000), "an hour is held before anything is made"
    await rig.settle()
    row = rig.row()
    assert (row.phase, row.host, row.held_gpus, row.precharged) == ("running", "local", 1, "")
    assert row.machine_id == "1" and rig.workloads[0].env == {"A": "1"}
    rig.clock.advance(600 - (rig.clock.now() - START).total_seconds())
    rig.wish(stopped=True)
    await rig.settle()
    row = rig.row()
    assert (row.phase, row.held_gpus, row.machine_id, row.host) == ("stopped", 0, "", "local") and not rig.cloud.things
    assert rig.cost() == Decimal("0.600252"), "ten minutes of the GPU, and five seconds more of the volume"
    wallet, held = rig.books()
    assert held == 0 and 9_399_990 < wallet <= 9_400_000, "what the held hour did not pay came back"
    rig.clock.advance(86_400)
    assert Decimal("0.636") < rig.cost() < Decimal("0.637"), "a day of the volume alone"
    rig.wish(stopped=False)
    await rig.settle()
    assert rig.row().phase == "running" and rig.books()[1] > 3_500_000
    with rig.database.write() as session:
        pods.request_delete(session, "pod_1", rig.clock.now())
    await rig.settle()
    row = rig.row()
    assert row.phase == "terminated" and row.deleted_at is not None and rig.stacks.state == {}
    assert rig.books()[1] == 0 and await rig.reconciler.look("pod_1") is None
    after = rig.cost()
    rig.clock.advance(86_400)
    assert rig.cost() == after, "terminating stops every meter"


async def test_two_accepted_for_the_last_place_one_gets_it_and_one_is_told(rig: PodRig) -> None:
    rig.create("pod_1", hourly="1")
    rig.create("pod_2", hourly="1")
    await rig.settle("pod_1", "pod_2")
    assert [rig.row(i).phase for i in ("pod_1", "pod_2")] == ["running", "failed"]
    assert "local is full" in rig.row("pod_2").phase_reason
    with rig.database.read() as session:
        assert placements.used(session) == {("local", "CPU"): 1}
    assert rig.books()[1] > 900_000 and rig.books()[1] <= 1_000_000, "the other hour came back"
    rig.places = 2
    rig.wish("pod_2", stopped=False)
    await rig.settle("pod_2")
    assert rig.row("pod_2").phase == "running"


async def test_the_ledger_is_locked_before_the_pod_as_the_api_does(rig: PodRig) -> None:
    rig.create()
    rig.places = 0
    said: list[str] = []
    note = lambda _c, _cursor, statement, *_: said.append(" ".join(statement.split()))  # noqa: E731 (removed again)
    event.listen(Engine, "before_cursor_execute", note)
    try:
        await rig.settle()
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    assert rig.row().phase == "failed" and rig.books()[1] == 0
    failed = next(i for i, text in enumerate(said) if text.startswith("UPDATE pods") and "failed_generation" in text)
    began = max(i for i in range(failed) if "FROM leases" in said[i])  # every transaction of a leader asks that first
    assert any("FROM ledger_accounts" in text for text in said[began:failed])


async def test_a_place_taken_between_looking_and_recording_is_not_taken_twice(rig: PodRig) -> None:
    rig.create("pod_1", hourly="1")
    rig.create("pod_2", hourly="1")
    seen = [rig.reconciler._observe(i) for i in ("pod_1", "pod_2")]
    assert all(s is not None and s.snapshot.offers for s in seen)
    await rig.settle("pod_1", seconds=1)
    found = seen[1]
    assert found is not None
    outdated = decide(found.snapshot, now=rig.clock.now(), new_ids=list("abcd"))
    assert (await rig.applier.apply(found, outdated)).look_again and rig.row("pod_2").held_gpus == 0


async def test_out_of_money_it_stops_and_a_deposit_brings_it_back(rig: PodRig) -> None:
    rig.create(hourly="5")
    with rig.database.write() as session:
        deployments.insert(session, deployment_row(rig.clock.now()))
    await rig.settle()
    rig.clock.advance(2 * 3600)
    rig.books()
    rig.clock.advance(3600)
    rig.books()
    with rig.database.read() as session:
        dep = deployments.get(session, "dep_1")
    assert dep is not None and dep.suspended_at is not None, "every kind is suspended in one pass"
    await rig.settle()
    row = rig.row()
    assert row.phase == "stopped" and "balance is used up" in row.suspended_reason and not rig.cloud.things
    assert not row.is_stopped, "what its user wishes is remembered"
    with rig.database.write() as session:
        credit.deposit(session, "org_1", 50_000_000, key="d2", actor="operator:ann", now=rig.clock.now())
    rig.books()
    await rig.settle()
    assert rig.row().phase == "running"


@pytest.mark.parametrize("is_early", [True, False], ids=["set before", "set afterwards"])
async def test_a_budget_counts_the_held_hour_once(rig: PodRig, is_early: bool) -> None:
    if not is_early:
        rig.create()
    with rig.database.write() as session:
        budgets.put(
            session,
            BudgetRow(
                id="bud_1", org_id="org_1", scope="deployment", scope_id="pod_1", period="total",
                limit_microdollars=5_000_000, created_by="ann", created_at=rig.clock.now(),
                updated_at=rig.clock.now(),
            ),
        )  # fmt: skip
    if is_early:
        rig.create()
    await rig.settle()
    rig.clock.advance(2400)
    rig.books()
    assert rig.row().suspended_at is None, "two thirds of an hour are used, and the rest of it is held"
    rig.clock.advance(3600)
    rig.books()
    await rig.settle()
    assert rig.row().phase == "stopped" and "budget bud_1 of $5 in all is used up" in rig.row().suspended_reason
    gpu = next(i for i in intervals(rig) if i.replica == "gpu")
    assert gpu.ended_at is not None
    assert timedelta(minutes=83) < gpu.ended_at - gpu.started_at < timedelta(minutes=84), "$5 at $3.60, and no more"


async def test_a_failure_is_recorded_and_tried_again(rig: PodRig) -> None:
    rig.stacks.failures = [StackError("error: docker:index/volume:Volume (workspace): the daemon is away")]
    rig.create()
    await rig.settle(seconds=1)
    stack = next(c for c in rig.row().conditions if c["type"] == "StackUpdated")
    assert stack["reason"] == "Failed" and stack["message"].endswith("the daemon is away")
    await rig.settle()
    assert rig.row().phase == "running"


async def test_nothing_is_recorded_without_the_lease(rig: PodRig) -> None:
    rig.create()
    rig.fence.error = StaleLease("taken over")
    with pytest.raises(StaleLease):
        await rig.reconciler.look("pod_1")
    assert rig.row().conditions == [] and rig.row().held_gpus == 0 and rig.queue == []
