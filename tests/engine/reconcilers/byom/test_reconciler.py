"""Own weights from upload to removal on a database and real blobs, with machines that say what a test lets them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from engine.byom.gguf import GgufReader
from engine.byom.models import Offer, OwnWeights
from engine.model import ids
from engine.model.access import Principal
from engine.model.byom import Phase
from engine.model.deployment import Replica, ReplicaPhase
from engine.model.storage import Mount
from engine.reconcilers.byom.apply import ByomApplier
from engine.reconcilers.byom.reconciler import ByomReconciler
from engine.reconcilers.byom.snapshot import AgentModel, Look, ReplicaView
from engine.reconcilers.deployments.probe import Credentials
from engine.storage.sessions import UploadSessions
from engine.storage.sweeping import sweep_rows
from engine.store import byom, deployments, leases, orgs, storage_objects
from engine.store.byom_tables import ByomModelRow
from engine.store.database import Database
from engine.store.handler_tables import HandlerRow
from engine.store.sealing import Sealer
from tests.fakes.clock import FakeClock
from tests.fakes.gguf_file import whole
from tests.fakes.pod_rig import Held
from tests.fakes.rows import HANDLER, deployment_row, handler_row, org_row
from tests.fakes.storage import DiskStorage, disk_storage

SEALER = Sealer(b"x" * 32)
CALLER = Principal("org_1", operator="test")
CONTENT = whole(1 << 16)


@dataclass
class FakeAgents:
    """Machines that load everything at once, unless they are told to fail; silent ones say nothing."""

    room_gib: float = 50.0
    fails: str = ""
    silent: set[str] = field(default_factory=set)
    models: dict[str, dict[str, AgentModel]] = field(default_factory=dict)
    orders: list[Mapping[str, Any]] = field(default_factory=list)

    async def looks(self, replicas: Sequence[ReplicaView], credentials: Credentials) -> Mapping[str, Look | None]:
        assert credentials == Credentials("00" * 32, "wt")
        said = {r.name: Look(dict(self.models.get(r.name, {})), self.room_gib) for r in replicas}
        return {name: None if name in self.silent else look for name, look in said.items()}

    async def put(self, replica: ReplicaView, _: Credentials, name: str, order: Mapping[str, Any]) -> bool:
        self.orders.append(order)
        here = self.models.setdefault(replica.name, {})
        attempts = here[name].attempts + 1 if name in here else 1
        here[name] = AgentModel(name, "failed" if self.fails else "ready", self.fails, order["sha256"],
                                order["context"], attempts)  # fmt: skip
        return True

    async def drop(self, replica: ReplicaView, _: Credentials, name: str) -> bool:
        self.models[replica.name].pop(name, None)
        return True


@dataclass
class Yard:
    """A deployment with two machines, and the reconciler."""

    database: Database
    clock: FakeClock
    disk: DiskStorage
    weights: OwnWeights
    agents: FakeAgents
    reconciler: ByomReconciler

    async def settle(self, rounds: int = 8) -> None:
        """Look at everything until nothing more comes of it."""
        for _ in range(rounds):
            with self.database.read() as session:
                keys = byom.living_keys(session)
            for key in keys:
                await self.reconciler.look(key)
            self._check_health()
            self.clock.advance(1)

    def _check_health(self) -> None:
        """What the deployments' reconciler does: write down which models machines say they serve."""
        with self.database.write() as session:
            row = deployments.owned(session, "dep_1", "org_1")
            models = {name: [m for m in here if here[m].state == "ready"] for name, here in self.agents.models.items()}
            row.replicas = [{**replica, "models": models.get(replica["name"], [])} for replica in row.replicas]
            session.add(row)

    def in_parts(self, content: bytes, name: str = "m", sha256: str | None = None) -> str:
        """An upload in one part, completed."""
        offer = Offer.of(name, "dep_1", sha256)
        row, upload = self.weights.begin_parts(CALLER, offer, len(content))
        _, (part,) = UploadSessions(self.disk.service).parts(CALLER, upload.id)
        parts = urlsplit(part.url)
        grant = self.disk.service.signer.check("PUT", parts.path, parts.query, self.clock.now())
        arrival, writer = self.disk.receiver.begin(grant, len(content))
        writer.write(content)
        self.disk.receiver.end(arrival, writer)
        assert self.weights.complete(CALLER, upload.id).phase == Phase.VALIDATING
        return row.id

    def direct(self, name: str, deployment: str | None = "dep_1") -> str:
        sink, reader = self.weights.sink(CALLER), GgufReader()
        sink.write(CONTENT)
        reader.feed(CONTENT)
        sink.finish()
        digest = hashlib.sha256(CONTENT).hexdigest()
        offer = Offer(name, deployment)
        row = self.weights.keep(CALLER, offer, sink, reader.finish(), size_bytes=len(CONTENT), sha256=digest)
        return row.id

    def row(self, model_id: str) -> ByomModelRow:
        with self.database.read() as session:
            return session.get_one(ByomModelRow, model_id)

    def kept_bytes(self) -> int:
        with self.database.read() as session:
            return storage_objects.at_rest(session, "org_1")[1]

    def files(self) -> int:
        return sum(1 for path in self.disk.blobs.folder.rglob("blob_*") if path.is_file())


@pytest.fixture
def yard(store: Database, tmp_path: Path) -> Yard:
    return new_yard(store, tmp_path)


def new_yard(database: Database, tmp_path: Path) -> Yard:
    clock = FakeClock()
    disk = disk_storage(database, clock, tmp_path / "storage")
    with database.write() as session:
        orgs.insert(session, org_row(clock.now()))
        lease = leases.acquire(session, "reconcilers", "w1", 10**6, clock.now())
        replicas = [
            Replica(id=str(n), name=f"r1-{n}", address="127.0.0.2", endpoint="https://x", phase=ReplicaPhase.READY)
            for n in range(2)
        ]
        rows = [replica.model_dump(mode="json") for replica in replicas]
        deployments.insert(session, deployment_row(clock.now(), replicas=rows, phase="active",
                                                   worker_token_sealed=SEALER.seal("wt")))  # fmt: skip
    assert lease is not None
    weights = OwnWeights(disk.service, lambda _: 50.0, ids.new_id, disk.blobs)
    agents = FakeAgents()
    applier = ByomApplier(weights, SEALER, agents, Held(lease))  # type: ignore[arg-type]
    return Yard(database, clock, disk, weights, agents, ByomReconciler(applier, period_seconds=5))


async def test_upload_in_parts_is_looked_at_sent_and_ready(database: Database, tmp_path: Path) -> None:
    yard = new_yard(database, tmp_path)
    model = yard.in_parts(CONTENT, sha256=hashlib.sha256(CONTENT).hexdigest())
    await yard.settle()
    row = yard.row(model)
    assert (row.phase, row.sha256, row.header["layers"]) == ("ready", hashlib.sha256(CONTENT).hexdigest(), 2)
    assert row.ready_at is not None and row.context_tokens == 2048
    assert {key: place["state"] for key, place in row.places.items()} == {"dep_1/r1-0": "ready", "dep_1/r1-1": "ready"}
    order = yard.agents.orders[0]
    assert order["size"] == len(CONTENT) and "use=worker" in order["url"]
    with yard.database.read() as session:
        assert deployments.spec_of(deployments.owned(session, "dep_1", "org_1")).reserved_gib == row.need_gib
        assert storage_objects.owned(session, row.object_id or "", "org_1").sha256 == row.sha256
    assert len(yard.agents.orders) == 2  # nothing is sent twice


@pytest.mark.parametrize(
    ("content", "sha256", "words"),
    [
        (b"PK" + CONTENT, None, "not with 'GGUF'"),
        (CONTENT[:-64], None, "the file is truncated"),
        (CONTENT, "0" * 64, "was declared"),
        (whole(1 << 16, **{"llama.attention.head_count_kv": 60_000, "llama.block_count": 4000}), None, "GiB of GPU"),
    ],
)
async def test_upload_that_cannot_be_served_fails_and_costs_nothing(
    yard: Yard, content: bytes, sha256: str | None, words: str
) -> None:
    model = yard.in_parts(content, sha256=sha256)
    await yard.settle()
    row = yard.row(model)
    assert row.phase == "failed" and words in row.reason
    assert (yard.kept_bytes(), yard.files(), yard.agents.orders) == (0, 0, [])
    assert yard.row(yard.direct("m")).phase == "distributing"  # the name is free again


async def test_upload_nobody_finished_is_swept_after_a_day(yard: Yard) -> None:
    row, _ = yard.weights.begin_parts(CALLER, Offer("m", "dep_1"), 1000)
    yard.clock.advance(timedelta(hours=23).total_seconds())
    await yard.settle()
    assert yard.row(row.id).phase == "uploading"
    yard.clock.advance(timedelta(hours=2).total_seconds())
    sweep_rows(yard.database, yard.clock, yard.disk.service.backend)
    await yard.settle()
    assert (yard.row(row.id).phase, yard.row(row.id).reason) == (
        "failed", "the upload was not finished within 24 hours: begin a new one",
    )  # fmt: skip
    assert yard.kept_bytes() == 0


async def test_model_no_machine_can_load_fails_with_the_agents_words_and_can_be_deleted(yard: Yard) -> None:
    yard.agents.fails = "it does not load: unknown model architecture"
    model = yard.direct("m")
    for _ in range(6):
        await yard.settle(4)
        yard.clock.advance(300)
    row = yard.row(model)
    assert row.phase == "failed" and row.reason == "after 5 attempts: it does not load: unknown model architecture"
    assert yard.agents.models == {"r1-0": {}, "r1-1": {}}
    yard.weights.delete(CALLER, model)
    await yard.settle()
    assert (yard.row(model).phase, yard.files()) == ("deleted", 0)


async def test_models_and_their_bytes_end_with_their_deployment(yard: Yard) -> None:
    first, second = yard.direct("a"), yard.in_parts(CONTENT, "b")
    await yard.settle()
    assert {yard.row(first).phase, yard.row(second).phase} == {"ready"} and yard.files() == 2
    with yard.database.write() as session:
        deployments.request_delete(session, "dep_1", yard.clock.now())
    yard.agents.silent = {"r1-0", "r1-1"}
    await yard.settle()
    assert {yard.row(first).phase, yard.row(second).phase} == {"deleted"}
    assert (yard.kept_bytes(), yard.files()) == (0, 0)
    with yard.database.read() as session:
        assert byom.living_keys(session) == []


async def test_bytes_that_a_handler_mounts_stay_until_it_does_not(yard: Yard) -> None:
    model = yard.direct("m")
    await yard.settle()
    mounting = handler_row(yard.clock.now(), spec=HANDLER.model_copy(
        update={"mounts": (Mount(yard.row(model).object_id or "", "/m.gguf"),)}))  # fmt: skip
    with yard.database.write() as session:
        session.add(mounting)
    yard.weights.delete(CALLER, model)
    await yard.settle()
    assert yard.row(model).phase == "deleting" and "is mounted by deployment echo" in yard.row(model).reason
    with yard.database.write() as session:
        session.get_one(HandlerRow, mounting.id).deleted_at = yard.clock.now()
    await yard.settle()
    assert (yard.row(model).phase, yard.files()) == ("deleted", 0)


async def test_deployment_of_own_weights_alone_is_sent_the_organisations_model(yard: Yard) -> None:
    model = yard.direct("solo", deployment=None)
    assert yard.row(model).phase == "ready"
    with yard.database.write() as session:
        row = deployments.owned(session, "dep_1", "org_1")
        row.spec = row.spec | {"model_id": "byom:solo"}
        session.add(row)
    await yard.settle()
    assert [order["context"] for order in yard.agents.orders] == [2048, 2048]
    assert set(yard.row(model).places) == {"dep_1/r1-0", "dep_1/r1-1"}
    with pytest.raises(Exception, match="dep_1 is made of the model solo"):
        yard.weights.delete(CALLER, model)
    with pytest.raises(Exception, match="itself made of the model 'solo'"):
        yard.weights.check(CALLER, Offer("solo", "dep_1"))
