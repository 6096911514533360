"""A whole handlers' reconciler on a database, with the stacks and hosts a test brings; no DBOS, no dispatcher."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from engine.deploy.providers.docker.hosts import DockerHost as Connection
from engine.identity.worker_identity import new_worker_identity
from engine.model.handler import HandlerSpec, WorkerPhase
from engine.model.hosts import DockerHost
from engine.model.job import JobState
from engine.model.workload import HandlerWorkload
from engine.reconcilers.handlers.apply import HandlerApplier
from engine.reconcilers.handlers.processes import WorkerHost
from engine.reconcilers.handlers.reconciler import HandlerReconciler
from engine.reconcilers.handlers.snapshot import HandlerPolicy, Place
from engine.reconcilers.handlers.source import HandlerSource
from engine.reconcilers.handlers.targets import HandlerTargets
from engine.reconcilers.operations import StackOperations, StackUpdates
from engine.store import changes, handlers, leases, orgs, registries
from engine.store.database import Database
from engine.store.handler_tables import HandlerRow, WorkerActivityRow
from engine.store.job_tables import JobRow
from engine.store.registry_tables import RegistryCredentialRow
from engine.store.sealing import Sealer
from stacks.handler_spec import build_handler_request
from stacks.spec import StackSettings
from tests.fakes.clock import FakeClock
from tests.fakes.cloud import FakeCloud
from tests.fakes.pod_rig import Held
from tests.fakes.rows import handler_row, org_row
from tests.fakes.storage import disk_storage

DAY = timedelta(days=1)
SEALER = Sealer(b"x" * 32)


@dataclass
class HandlerRig:
    """Everything of one installation that concerns handlers.

    Attributes:
        places: pools → where they can be had.
        id: of the one deployment; hosts that tests share tell them apart by it.
        workloads: what stacks were built from, in order.
    """

    database: Database
    clock: FakeClock
    stacks: StackOperations
    processes: WorkerHost
    places: Callable[[Sequence[str]], Sequence[Place]]
    hosts: tuple[DockerHost, ...] = ()
    connections: Mapping[str, Connection] = field(default_factory=dict)
    id: str = "hdl_1"
    stored: Path = Path("/nonexistent")
    policy: HandlerPolicy = field(default_factory=HandlerPolicy)
    queue: list[tuple[str, str]] = field(default_factory=list)
    workloads: list[HandlerWorkload] = field(default_factory=list)

    def __post_init__(self) -> None:
        with self.database.write() as session:
            orgs.insert(session, org_row(self.clock.now()))
            lease = leases.acquire(session, "reconcilers", "w1", 1e9, self.clock.now())
            assert lease is not None
            orgs.ensure_installation(session, new_id="inst_1", now=self.clock.now())
        self.fence = Held(lease)
        self.storage = disk_storage(self.database, self.clock, self.stored).service
        source = HandlerSource(SEALER, self.hosts, "http://yard.test", self._build, self.storage)
        self.operations = StackUpdates(
            self.database, self.clock, self.stacks, {changes.HANDLER: source}, executor_id="w1"
        )
        self.applier = HandlerApplier(
            database=self.database, clock=self.clock, sealer=SEALER, processes=self.processes,
            targets=HandlerTargets(FakeCloud(), "tag", self.connections, has_cloud=False), places_of=self.places,
            submit=lambda update, stack: self.queue.append((update, stack)), fence=self.fence, policy=self.policy,
        )  # fmt: skip
        self.reconciler = HandlerReconciler(self.database, self.clock, self.applier, period_seconds=5.0)

    def create(self, spec: HandlerSpec) -> None:
        """Accept a deployment, as the API does."""
        identity = new_worker_identity(self.id, self.clock.now())
        row = handler_row(
            self.clock.now(), self.id, spec, secrets_sealed=SEALER.seal('{"KEY": "s3cret"}'),
            worker_token_sealed=SEALER.seal(identity.token), worker_key_sealed=SEALER.seal(identity.private_key_pem),
            worker_certificate_pem=identity.certificate_pem, worker_fingerprint=identity.fingerprint,
        )  # fmt: skip
        with self.database.write() as session:
            handlers.insert_once(session, row)

    def store_login(self, registry: str, username: str, password: str) -> None:
        """Its organisation's credentials for a registry, as the API stores them."""
        now = self.clock.now()
        row = RegistryCredentialRow(
            org_id="org_1", host=registry, username=username, password_sealed=SEALER.seal(password), created_by="ann",
            created_at=now, updated_at=now,
        )  # fmt: skip
        with self.database.write() as session:
            registries.put(session, row)

    def edit(self, **changed: Any) -> None:
        row = self.row()
        spec = handlers.spec_of(row).model_copy(update=changed)
        with self.database.write() as session:
            assert handlers.update_spec(session, row.id, spec, generation=row.generation, now=self.clock.now())

    def submit(self, id: str = "job_1") -> None:
        """A job waits."""
        now = self.clock.now()
        row = JobRow(id=id, org_id="org_1", handler_id=self.id, slug="echo", tier="basic", created_at=now,
                     state=JobState.QUEUED.value, expires_at=now + DAY, execution_timeout_ms=1000)  # fmt: skip
        with self.database.write() as session:
            session.add(row)
            changes.record(session, changes.HANDLER, self.id, self.clock.now())

    def finish(self, id: str = "job_1") -> None:
        with self.database.write() as session:
            row = session.get_one(JobRow, id)
            row.state, row.finished_at = JobState.SUCCEEDED.value, self.clock.now()

    def says(self, worker: str, **values: Any) -> None:
        """What the dispatcher recorded of a worker."""
        row = WorkerActivityRow(handler_id=self.id, worker=worker, protocol="http", **values)
        with self.database.write() as session:
            handlers.put_activity(session, [row], self.clock.now())

    def row(self) -> HandlerRow:
        with self.database.read() as session:
            row = handlers.get(session, self.id)
        assert row is not None
        return row

    def workers(self) -> dict[str, WorkerPhase]:
        return {w.name: w.phase for w in handlers.workers_of(self.row())}

    async def settle(self, seconds: float = 0) -> None:
        """Look and work until nothing more is to be done at once; then time passes."""
        for _ in range(20):
            outcome = await self.reconciler.look(self.id)
            todo, self.queue[:] = list(self.queue), []
            for update, _stack in todo:
                self.clock.advance(0.001)  # of two operations one ended later
                await asyncio.to_thread(self.operations.run, update, self.fence)
            if outcome is None or not outcome.look_again:
                break
        self.clock.advance(seconds)

    def _build(self, workload: HandlerWorkload) -> Any:
        self.workloads.append(workload)
        return build_handler_request(workload, StackSettings())
