"""A whole pods' reconciler on a database, with fake stacks, or whichever stacks and targets a test brings."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from engine.billing import credit, meter, settling
from engine.model.fence import NoFence
from engine.model.ledger import Scopes
from engine.model.pod import ContainerState, FindRoom, Offer, Place, PodSpec, PodWorkload, Room, Taken, Target
from engine.model.registries import LocalImages
from engine.model.stack import ConfigText, StackRequest, stack_name
from engine.reconcilers.inventory import Resource
from engine.reconcilers.operations import StackOperations, StackUpdates
from engine.reconcilers.pods.apply import Greeter, PodApplier, Targets
from engine.reconcilers.pods.reconciler import PodReconciler
from engine.reconcilers.pods.snapshot import PodPolicy
from engine.reconcilers.pods.source import PodSource
from engine.store import changes, leases, ledger, orgs, pods
from engine.store.database import Database
from engine.store.leases import Lease
from engine.store.pod_tables import PodRow
from engine.store.sealing import Sealer
from engine.store.tables import OrgRow
from tests.fakes.clock import FakeClock
from tests.fakes.cloud import INSTALLATION, FakeCloud, FakeStacks
from tests.fakes.storage import disk_storage

SEALER = Sealer(b"x" * 32)
SPEC = PodSpec(name="rig", gpu_type="CPU", image="img", volume_gb=73)
PLACE = Place(Target.DOCKER, "local", "CPU", "local")


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
class FakeGreeter:
    """An SSH server everywhere."""

    async def greeting(self, address: str, port: int) -> tuple[str, str]:
        return "SSH-2.0-test", ""


@dataclass
class FakeTargets:
    """The fake cloud, asked for one pod's things."""

    cloud: FakeCloud

    async def owned(self, stack: str, place: Place | None) -> Sequence[Resource]:
        return [r for r in await self.cloud.resources(INSTALLATION) if f"stackyard:{stack}" in r.tags]

    async def delete(self, resource: Resource, place: Place | None) -> None:
        await self.cloud.delete(resource)

    async def container(self, place: Place, id: str) -> ContainerState:
        return ContainerState(id in self.cloud.things, "running", runs_seconds=60)


@dataclass
class PodRig:
    """Everything of one installation but DBOS: by default one host with `places` places, and no Docker.

    Attributes:
        workloads: what stacks were built from, in order.
    """

    database: Database
    clock: FakeClock
    places: int = 1
    operations_by: StackOperations | None = None
    targets: Targets | None = None
    greeter: Greeter | None = None
    find_room: FindRoom | None = None
    build: Callable[[PodWorkload], StackRequest] | None = None
    stored: Path = Path("/nonexistent")
    local_images: LocalImages = LocalImages.ALL
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
        storage = disk_storage(self.database, self.clock, self.stored).service
        sources = {changes.POD: PodSource(SEALER, self._build, storage, self.local_images)}
        self.operations = StackUpdates(
            self.database, self.clock, self.operations_by or self.stacks, sources, executor_id="w1"
        )
        self.applier = PodApplier(
            database=self.database, clock=self.clock, greeter=self.greeter or FakeGreeter(),
            targets=self.targets or FakeTargets(self.cloud), find_room=self.find_room or self._find_room,
            submit=lambda update, stack: self.queue.append((update, stack)),
            fence=self.fence, policy=PodPolicy(),
        )  # fmt: skip
        self.reconciler = PodReconciler(
            self.database, self.clock, self.applier, refresh_market=self._nothing, period_seconds=5.0
        )

    def create(self, id: str = "pod_1", *, hourly: str = "3.60", spec: PodSpec = SPEC) -> None:
        """Accept a pod, as the API does."""
        row = PodRow(
            id=id, org_id="org_1", name="rig", spec=spec.model_dump(mode="json"), hourly_rate_usd=hourly,
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
                        await asyncio.to_thread(self.operations.run, update, self.fence)
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
        if self.build is not None:
            return self.build(workload)
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
