"""A whole reconciler on SQLite, with a fake cloud, fake stack operations and scripted health checks."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest

from engine.controller.result import Result
from engine.model.deployment import DeploymentSpec
from engine.model.stack import ConfigText, StackRequest, stack_name
from engine.model.workload import Workload
from engine.reconcilers.deployments.apply import Applier
from engine.reconcilers.deployments.health import Measurement
from engine.reconcilers.deployments.probe import Credentials
from engine.reconcilers.deployments.reconciler import DeploymentReconciler
from engine.reconcilers.deployments.snapshot import Policy
from engine.reconcilers.deployments.source import DeploymentSource
from engine.reconcilers.operations import StackUpdates
from engine.store import changes, deployments, leases, orgs
from engine.store.database import Database
from engine.store.leases import Lease
from engine.store.sealing import Sealer
from engine.store.tables import DeploymentRow
from tests.fakes.clock import START, FakeClock
from tests.fakes.cloud import INSTALLATION, FakeCloud, FakeStacks
from tests.fakes.rows import SPEC, deployment_row, org_row

SEALER = Sealer(b"x" * 32)


@dataclass
class FakeFence:
    """Held until the test says otherwise."""

    token: int = 1
    error: Exception | None = None
    lease: Lease = field(default_factory=lambda: Lease("reconcilers", "w1", 0, START))

    def check(self) -> None:
        if self.error is not None:
            raise self.error

    def holder_is_dead(self, lock_owner: str) -> bool:
        return False


@dataclass
class FakeProbe:
    """Answers as the test says; remembers who was asked with what."""

    healthy: bool = True
    silent: set[str] = field(default_factory=set)
    asked: list[tuple[str, Credentials]] = field(default_factory=list)
    told: list[tuple[str, bool]] = field(default_factory=list)
    in_flight: dict[str, int] = field(default_factory=dict)

    async def measure(self, endpoint: str, credentials: Credentials) -> Measurement:
        self.asked.append((endpoint, credentials))
        if self.healthy and endpoint not in self.silent:
            return Measurement(True, in_flight=self.in_flight.get(endpoint, 0))
        return Measurement(False, "does not answer")

    async def drain(self, endpoint: str, credentials: Credentials, *, draining: bool) -> Measurement:
        self.told.append((endpoint, draining))
        if self.healthy and endpoint not in self.silent:
            return Measurement(True, in_flight=self.in_flight.get(endpoint, 0))
        return Measurement(False, "does not answer")


class Rig:
    """Everything of one installation but DBOS: submitted operations wait in `queue` until `work`."""

    def __init__(self, database: Database, clock: FakeClock) -> None:
        self.database, self.clock = database, clock
        self.cloud = FakeCloud()
        self.stacks = FakeStacks(self.cloud)
        self.probe = FakeProbe()
        self.fence = FakeFence()
        self.queue: list[tuple[str, str]] = []
        self.requests: list[Workload] = []
        sources = {changes.DEPLOYMENT: DeploymentSource(SEALER, self._build_request)}
        self.operations = StackUpdates(database, clock, self.stacks, sources, executor_id="w1")
        self.applier = Applier(
            database=database,
            clock=clock,
            sealer=SEALER,
            probe=self.probe,  # type: ignore[arg-type]
            inventory=self.cloud,
            installation_tag=INSTALLATION,
            submit=lambda update, stack: self.queue.append((update, stack)),
            hourly_usd=lambda gpu_type: {"h100": Decimal("4.41"), "mi300x": Decimal("2.59")}[gpu_type],
            fence=self.fence,
            policy=Policy(),
        )
        self.reconciler = DeploymentReconciler(database, clock, self.applier, period_seconds=5.0)
        with database.write() as session:
            orgs.insert(session, org_row(clock.now()))
            held = leases.acquire(session, "reconcilers", "w1", 1e9, clock.now())
            assert held is not None
            self.fence.lease = held
            orgs.ensure_installation(session, new_id="inst_1", now=clock.now())

    def create(self, id: str = "dep_1", **fields: Any) -> DeploymentRow:
        """Accept a deployment."""
        row = deployment_row(
            self.clock.now(),
            id,
            SPEC.model_copy(update=fields),
            worker_token_sealed=SEALER.seal("wt_1"),
            worker_key_sealed=SEALER.seal("key"),
        )
        with self.database.write() as session:
            return deployments.insert(session, row)

    def row(self, id: str = "dep_1") -> DeploymentRow:
        with self.database.read() as session:
            row = deployments.get(session, id)
        assert row is not None
        return row

    def edit(self, id: str = "dep_1", **fields: Any) -> None:
        row = self.row(id)
        spec = DeploymentSpec.model_validate(row.spec).model_copy(update=fields)
        with self.database.write() as session:
            assert deployments.update_spec(session, id, spec, generation=row.generation, now=self.clock.now())

    def delete(self, id: str = "dep_1") -> None:
        with self.database.write() as session:
            deployments.request_delete(session, id, self.clock.now())

    def work(self, *, token: int = 1) -> list[Result]:
        """Run what was submitted."""
        todo, self.queue[:] = list(self.queue), []
        return [self.operations.run(update, FakeFence(token)) for update, _ in todo]

    async def settle(self, *ids: str, seconds: float = 10, step: float = 1) -> None:
        """Look, work and let time pass."""
        for _ in range(int(seconds / step)):
            for id in ids or ("dep_1",):
                for _ in range(8):
                    outcome = await self.reconciler.look(id)
                    self.work()
                    if outcome is None or not outcome.look_again:
                        break
            self.clock.advance(step)

    def _build_request(self, workload: Workload) -> StackRequest:
        self.requests.append(workload)
        names = " ".join(machine.name for machine in workload.machines)
        config = {"names": ConfigText(names), "generation": ConfigText(str(workload.generation))}
        config["placement"] = ConfigText(str(workload.placement_revision))
        return StackRequest(stack_name(workload.deployment_id), lambda: None, config)


@pytest.fixture
def rig(store: Database, clock: FakeClock) -> Rig:
    return Rig(store, clock)
