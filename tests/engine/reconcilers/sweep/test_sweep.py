"""Settling the cloud with our rows: decisions as tables, then whole sweeps on a fake cloud."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from engine.model.deployment import UpdateKind
from engine.model.errors import CloudError, StaleLease
from engine.model.fence import NoFence
from engine.reconcilers.sweep.decide import Delete, Found, Owner, Refresh, Suspect, SweepSnapshot, decide
from engine.reconcilers.sweep.sweeper import Sweeper
from engine.store import deployments, orgs, updates
from engine.store.database import Database
from engine.store.tables import UpdateRow
from tests.fakes.clock import START, FakeClock
from tests.fakes.cloud import INSTALLATION, FakeCloud
from tests.fakes.rows import deployment_row, org_row

SECOND = timedelta(seconds=1)
GRACE = 60 * SECOND


def owner(**fields: Any) -> Owner:
    values: dict[str, Any] = {
        "deployment_id": "dep_1", "stack": "dep-1", "machines": frozenset({"1"}), "settled_since": START - SECOND,
        "busy": False, "is_leaving": False,
    }  # fmt: skip
    return Owner(**(values | fields))


def found(id: str = "1", kind: str = "droplet", stack: str = "dep-1", is_ours: bool = True) -> Found:
    return Found(kind, id, id, stack, is_ours)


def snapshot(*things: Found, **fields: Any) -> SweepSnapshot:
    values: dict[str, Any] = {
        "listed_at": START, "found": things, "owners": {"dep-1": owner()}, "gone_stacks": frozenset({"dep-gone"}),
        "busy_stacks": frozenset(), "suspects": {},
    }  # fmt: skip
    return SweepSnapshot(**(values | fields))


SEEN = {f"{kind}/9": START - GRACE for kind in ("droplet", "firewall", "volume")}
ORPHAN = found("9", stack="dep-none")
SURPLUS = found("9")


@pytest.mark.parametrize(
    ("what", "is_deleted"),
    [
        (snapshot(found(), ORPHAN, suspects=SEEN), True),
        (snapshot(found(), ORPHAN), False),
        (snapshot(found(), ORPHAN, suspects={"droplet/9": START - GRACE + SECOND}), False),
        (snapshot(found(), ORPHAN, suspects=SEEN, busy_stacks=frozenset({"dep-none"})), False),
        (snapshot(found(), found("9", stack="dep-gone"), suspects=SEEN), True),
        (snapshot(found(), found("9", "firewall", "dep-gone", is_ours=False), suspects=SEEN), True),
        (snapshot(found(), found("9", "firewall", "dep-none", is_ours=False), suspects=SEEN), False),
        (snapshot(found(), found("9", "volume", "dep-gone"), suspects=SEEN), True),
        (snapshot(found(), found("9", "volume", "dep-none"), suspects=SEEN), False),  # files: a row may just be missing
        (snapshot(found(), SURPLUS, suspects=SEEN), True),
        (snapshot(found(), found("9", "firewall"), suspects=SEEN), False),
        (snapshot(found(), SURPLUS, suspects=SEEN, owners={"dep-1": owner(busy=True)}), False),
        (snapshot(found(), SURPLUS, suspects=SEEN, owners={"dep-1": owner(is_leaving=True)}), False),
        (snapshot(found(), SURPLUS, suspects=SEEN, owners={"dep-1": owner(settled_since=None)}), False),
        (snapshot(found(), SURPLUS, suspects=SEEN, owners={"dep-1": owner(settled_since=START)}), False),
        (snapshot(found(), SURPLUS, suspects=SEEN, owners={"dep-1": owner(machines=None)}), False),
    ],
    ids=[
        "orphan", "orphan seen first now", "orphan within grace", "operation open", "deployment gone",
        "firewall of a gone one", "another installation's firewall", "volume of a gone one", "volume without a row",
        "machine the stack does not know",
        "firewall of a living one", "owner busy", "owner leaving", "owner unsettled", "settled after listing",
        "never succeeded",
    ],
)  # fmt: skip
def test_what_is_deleted(what: SweepSnapshot, is_deleted: bool) -> None:
    deleted = [a.found.id for a in decide(what, now=START, grace=GRACE) if isinstance(a, Delete)]
    assert deleted == (["9"] if is_deleted else [])


@pytest.mark.parametrize(
    ("who", "is_refreshed"),
    [
        (owner(), True),
        (owner(busy=True), False),
        (owner(is_leaving=True), False),
        (owner(settled_since=None), False),
        (owner(settled_since=START), False),
        (owner(machines=frozenset()), False),
    ],
)
def test_who_is_refreshed_when_a_machine_is_missing(who: Owner, is_refreshed: bool) -> None:
    actions = decide(snapshot(owners={"dep-1": who}), now=START, grace=GRACE)
    assert actions == ([Refresh("dep_1", "dep-1", ("1",))] if is_refreshed else [])


def test_all_well_is_left_alone() -> None:
    assert decide(snapshot(found()), now=START, grace=GRACE) == []


def test_a_suspect_keeps_the_time_it_was_first_seen() -> None:
    since = START - SECOND
    actions = decide(snapshot(found(), ORPHAN, suspects={"droplet/9": since}), now=START, grace=GRACE)
    assert actions == [Suspect(ORPHAN, since)]


# Whole sweeps


class Closed:
    token = 1

    def check(self) -> None:
        raise StaleLease("taken over")

    def holder_is_dead(self, lock_owner: str) -> bool:
        return False


class Rig:
    """A sweeper on a fake cloud with one active deployment `dep_1` whose machine is `1`."""

    def __init__(self, database: Database, clock: FakeClock) -> None:
        self.database, self.clock, self.cloud = database, clock, FakeCloud()
        self.submitted: list[tuple[str, str]] = []
        self.sweeper = Sweeper(
            database=database, clock=clock, inventory=self.cloud, installation_tag=INSTALLATION,
            submit=lambda update, stack: self.submitted.append((update, stack)), fence=NoFence(),
            period_seconds=60, grace=GRACE,
        )  # fmt: skip
        self.cloud.add("droplet", "1", "stackyard:dep-1", INSTALLATION)
        with database.write() as session:
            orgs.insert(session, org_row(clock.now()))
            deployments.insert(session, deployment_row(clock.now(), phase="active"))
            self.record_up(session, clock.now())
        clock.advance(1)

    def record_up(self, session: Any, now: datetime) -> None:
        row = UpdateRow(
            id="upd_1", deployment_id="dep_1", stack="dep-1", kind=UpdateKind.UP.value, generation=1, requested_at=now
        )
        updates.insert(session, row)
        updates.start(session, "upd_1", executor_id="w", lease_token=1, now=now)
        outputs = {"replicas": [{"id": "1", "name": "r1-0"}], "endpoints": ["https://x"]}
        updates.succeed(session, "upd_1", lease_token=1, outputs=outputs, resource_changes={}, now=now)


@pytest.fixture
def rig(store: Database, clock: FakeClock) -> Rig:
    return Rig(store, clock)


async def test_an_orphan_is_deleted_one_sweep_after_it_was_found(rig: Rig) -> None:
    rig.cloud.add("droplet", "2", "stackyard:dep-none", INSTALLATION)
    rig.cloud.add("droplet", "3", INSTALLATION)  # no owner tag: not ours to judge
    assert await rig.sweeper.sweep()
    assert set(rig.cloud.things) == {"1", "2", "3"}
    rig.clock.advance(60)
    await rig.sweeper.sweep()
    assert set(rig.cloud.things) == {"1", "3"}
    assert not await rig.sweeper.sweep()
    assert rig.cloud.listings == 3, "one listing per sweep"


async def test_what_is_left_of_a_gone_deployment_goes(rig: Rig) -> None:
    with rig.database.write() as session:
        row = deployments.request_delete(session, "dep_1", rig.clock.now())
        assert row is not None
        row.phase, row.deleted_at = "inactive", rig.clock.now()
        session.add(row)
    await rig.sweeper.sweep()
    rig.clock.advance(60)
    await rig.sweeper.sweep()
    assert rig.cloud.things == {}


async def test_an_owner_that_lost_its_machine_is_refreshed_once(rig: Rig) -> None:
    rig.cloud.things.clear()
    await rig.sweeper.sweep()
    await rig.sweeper.sweep()
    assert [stack for _, stack in rig.submitted] == ["dep-1"]
    with rig.database.read() as session:
        update = updates.open_for_stack(session, "dep-1")
        assert update is not None and update.kind == UpdateKind.REFRESH and update.id == rig.submitted[0][0]


async def test_a_refresh_that_failed_is_asked_for_again(rig: Rig) -> None:
    rig.cloud.things.clear()
    await rig.sweeper.sweep()
    with rig.database.write() as session:
        updates.fail(session, rig.submitted[0][0], lease_token=1, code="x", message="y", now=rig.clock.advance(1))
    rig.clock.advance(60)
    await rig.sweeper.sweep()
    assert len(rig.submitted) == 2


async def test_an_unreachable_cloud_settles_nothing(rig: Rig) -> None:
    rig.cloud.unreachable = True
    with pytest.raises(CloudError):
        await rig.sweeper.sweep()
    assert rig.submitted == []


async def test_who_lost_the_lease_deletes_nothing(rig: Rig) -> None:
    rig.cloud.add("droplet", "2", "stackyard:dep-none", INSTALLATION)
    await rig.sweeper.sweep()
    rig.clock.advance(60)
    rig.sweeper.fence = Closed()
    with pytest.raises(StaleLease):
        await rig.sweeper.sweep()
    assert "2" in rig.cloud.things
