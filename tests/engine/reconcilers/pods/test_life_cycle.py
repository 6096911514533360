"""A pod's life on a real database: what is recorded, placed, paid and guarded."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from engine.billing import credit, meter, settling
from engine.model.errors import StackError, StaleLease
from engine.model.fence import NoFence
from engine.model.ledger import Scopes
from engine.model.pod import Offer, Place, PodSpec, PodWorkload, Room, Taken, Target
from engine.model.stack import ConfigText, StackRequest, stack_name
from engine.reconcilers.inventory import Resource
from engine.reconcilers.operations import StackUpdates
from engine.reconcilers.pods.apply import PodApplier
from engine.reconcilers.pods.decide import decide
from engine.reconcilers.pods.reconciler import PodReconciler
from engine.reconcilers.pods.snapshot import PodPolicy
from engine.reconcilers.pods.source import PodSource
from engine.store import changes, deployments, leases, ledger, orgs, placements, pods
from engine.store.database import Database
from engine.store.leases import Lease
from engine.store.pod_tables import PodRow
from engine.store.sealing import Sealer
from engine.store.tables import OrgRow
from tests.fakes.clock import START, FakeClock
from tests.fakes.cloud import INSTALLATION, FakeCloud, FakeStacks
from tests.fakes.rows import deployment_row

SEALER = Sealer(b"x" * 32)
SPEC = PodSpec(name="rig", gpu_type="CPU", image="img", volume_gb=73)
PLACE = Place(Target.DOCKER, "local", "CPU", "local")
HOUR = timedelta(hours=1)


@dataclass
class Held(NoFence):
    """The leader's fence: held until the test says otherwise."""

    lease: Lease
    error: Exception | None = None

    def check(self) -> None:
        if self.error is not None:
            raise self.error

    @property
    def token(self) -> int:
        return self.lease.token


@dataclass
class Greeter:
    async def greeting(self, address: str, port: int) -> tuple[str, str]:
        return "SSH-2.0-test", ""


@dataclass
class Targets:
    """The fake cloud, asked for one pod's things."""

    cloud: FakeCloud

    async def owned(self, stack: str, place: Place | None) -> Sequence[Resource]:
        return [r for r in await self.cloud.resources(INSTALLATION) if f"stackyard:{stack}" in r.tags]

    async def delete(self, resource: Resource, place: Place | None) -> None:
        await self.cloud.delete(resource)


@dataclass
class PodRig:
    """Everything of one installation but DBOS and Docker: one host with `places` places."""

    database: Database
    clock: FakeClock
    places: int = 1
    queue: list[tuple[str, str]] = field(default_factory=list)
    workloads: list[PodWorkload] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cloud = FakeCloud()
        self.stacks = FakeStacks(self.cloud)
        with self.database.write() as session:
            orgs.insert(
                session,
                OrgRow(id="org_1", name="Acme", tier="basic", credit_limit_microdollars=0, created_at=self.clock.now()),
            )
            lease = leases.acquire(session, "reconcilers", "w1", 1e9, self.clock.now())
            assert lease is not None
            orgs.ensure_installation(session, new_id="inst_1", now=self.clock.now())
            credit.deposit(session, "org_1", 10_000_000, key="d1", actor="operator:ann", now=self.clock.now())
        self.fence = Held(lease)
        sources = {changes.POD: PodSource(SEALER, self._build)}
        self.operations = StackUpdates(self.database, self.clock, self.stacks, sources, executor_id="w1")
        self.applier = PodApplier(
            database=self.database, clock=self.clock, greeter=Greeter(), targets=Targets(self.cloud),
            find_room=self._find_room, submit=lambda update, stack: self.queue.append((update, stack)),
            fence=self.fence, policy=PodPolicy(),
        )  # fmt: skip
        self.reconciler = PodReconciler(
            self.database, self.clock, self.applier, refresh_market=self._nothing, period_seconds=5.0
        )

    def create(self, id: str = "pod_1", *, hourly: str = "3.60") -> None:
        """Accept a pod, as the API does."""
        row = PodRow(
            id=id, org_id="org_1", name="rig", spec=SPEC.model_dump(mode="json"), hourly_rate_usd=hourly,
            env_sealed=SEALER.seal(json.dumps({"A": "1"})), volume_rate_usd="0.0015", created_at=self.clock.now(),
            updated_at=self.clock.now(), precharged=f"use_{id}",
        )  # fmt: skip
        with self.database.write() as session:
            self._precharge(session, row, row.precharged)
            pods.insert_once(session, row)

    def wish(self, id: str = "pod_1", *, stopped: bool) -> None:
        row = self.row(id)
        with self.database.write() as session:
            interval = None if stopped else f"use_{id}_{row.generation}"
            if interval:
                self._precharge(session, row, interval)
            assert pods.wish(session, row, self.clock.now(), stopped=stopped, precharged=interval)

    def _precharge(self, session: Any, row: PodRow, interval: str) -> None:
        meter.precharge(
            session, interval_id=interval, scopes=Scopes("org_1", deployment_id=row.id),
            hourly_rate_usd=Decimal(row.hourly_rate_usd), now=self.clock.now(),
        )  # fmt: skip

    def row(self, id: str = "pod_1") -> PodRow:
        with self.database.read() as session:
            row = pods.get(session, id)
        assert row is not None
        return row

    async def settle(self, *ids: str, seconds: int = 5) -> None:
        """Look, work and let time pass."""
        for _ in range(seconds):
            for id in ids or ("pod_1",):
                for _ in range(12):
                    outcome = await self.reconciler.look(id)
                    todo, self.queue[:] = list(self.queue), []
                    for update, _stack in todo:
                        self.operations.run(update, self.fence)
                    if outcome is None or not outcome.look_again:
                        break
            self.clock.advance(1)

    def books(self) -> tuple[int, int]:
        """Wallet and held, once all that is due is posted."""
        settling.settle_everything(self.database, self.clock.now(), guard=lambda _: None)
        with self.database.read() as session:
            balance = ledger.balance(session, "org_1")
        return balance.wallet, balance.held

    def cost(self) -> Decimal:
        with self.database.read() as session:
            return meter.deployment_cost(session, "pod_1", self.clock.now())

    def _build(self, workload: PodWorkload) -> StackRequest:
        self.workloads.append(workload)
        names = "pod" if workload.is_running else ""
        config = {"names": ConfigText(names), "generation": ConfigText(str(workload.generation))}
        return StackRequest(stack_name(workload.pod_id), lambda: None, config)

    def _find_room(self, spec: PodSpec, place: Place | None, taken: Taken) -> Room:
        if taken.used.get(("local", "CPU"), 0) < self.places:
            return Room((Offer(PLACE),))
        return Room((), ("local is full",))

    @staticmethod
    async def _nothing() -> None:
        """The market is always up to date."""


@pytest.fixture
def rig(store: Database, clock: FakeClock) -> PodRig:
    return PodRig(store, clock)


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
