from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from engine.gateway.api_proxy import ApiProxy
from engine.gateway.feed import RouteFeed
from engine.gateway.front_door import FrontDoor
from engine.gateway.gathering import GatheringProtocol
from engine.gateway.metrics import GatewayMetrics
from engine.gateway.routes import RouteTable
from engine.gateway.waiting import Patience
from engine.identity.keys import KeyHasher
from engine.identity.worker_identity import new_worker_identity
from engine.model import ids
from engine.model.clock import SystemClock
from engine.model.workload import WorkerIdentity
from engine.store import changes, deployments, keys, orgs
from engine.store.database import Database
from engine.store.sealing import Sealer
from engine.store.tables import ApiKeyRow, DeploymentRow, OrgRow
from tests.fakes.byte_path import byte_path
from tests.fakes.fake_worker import FakeWorker

SECRET = b"0123456789abcdef0123456789abcdef"
LIMIT = 1024 * 1024
WAKE_SECONDS = 30.0
_SPEC = {"name": "d", "model_id": "m", "gpu_type": "h100", "region": "nyc2"}


def run_server(app: Any, **options: Any) -> tuple[uvicorn.Server, threading.Thread]:
    """A uvicorn server in a thread, returned once it accepts."""
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1, **options))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        thread.join(0.005)
    return server, thread


@dataclass
class Yard:
    """A store with one tenant, and a gateway in front of it."""

    database: Database
    url: str
    socket_path: Path
    new_worker: Callable[..., FakeWorker]
    hasher: KeyHasher
    sealer: Sealer
    key: str = ""
    key_id: str = ""
    clock: SystemClock = field(default_factory=SystemClock)
    stop: Callable[[], None] = lambda: None
    """Ends the gateway, which then has written everything down."""

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def add_key(self, org_id: str = "org_1") -> str:
        secret, key_hash, shown = self.hasher.new_key("sk")
        self.key_id = ids.new_id("key")
        row = ApiKeyRow(id=self.key_id, org_id=org_id, name="k", prefix=shown, key_hash=key_hash,
                        created_at=self.clock.now())  # fmt: skip
        with self.database.write() as session:
            keys.insert(session, row)
        return secret

    def add_deployment(
        self, *workers: FakeWorker, phase: str = "active", org_id: str = "org_1", model_id: str = "m", **values: Any
    ) -> str:
        identity = workers[0].identity if workers else new_worker_identity("dep_x", self.clock.now())
        now = self.clock.now()
        row = DeploymentRow(
            id=ids.new_id("dep"), org_id=org_id, name="d", created_at=now, updated_at=now, phase=phase,
            worker_token_sealed=self.sealer.seal(identity.token), worker_key_sealed="",
            worker_fingerprint=identity.fingerprint, worker_certificate_pem=identity.certificate_pem,
            replicas=_replicas(workers), **{"spec": _SPEC | {"model_id": model_id}} | values,
        )  # fmt: skip
        with self.database.write() as session:
            deployments.insert(session, row)
        return row.id

    def change(self, deployment_id: str, *workers: FakeWorker, **values: Any) -> None:
        with self.database.write() as session:
            row = session.get_one(DeploymentRow, deployment_id)
            if workers:
                values["replicas"] = _replicas(workers)
            for name, value in values.items():
                setattr(row, name, value)
            changes.record(session, changes.DEPLOYMENT, deployment_id, self.clock.now())

    def chat_url(self, deployment_id: str) -> str:
        return f"{self.url}/api/v1/public/deployments/{deployment_id}/chat/completions"


def _replicas(workers: tuple[FakeWorker, ...]) -> list[dict[str, str]]:
    return [
        {"id": str(i), "name": f"r1-{i}", "address": "127.0.0.1", "endpoint": w.endpoint, "phase": "ready"}
        for i, w in enumerate(workers)
    ]


@pytest.fixture
def new_worker() -> Iterator[Callable[..., FakeWorker]]:
    made: list[FakeWorker] = []

    def make(identity: WorkerIdentity | None = None) -> FakeWorker:
        made.append(FakeWorker(identity or new_worker_identity("dep_x", SystemClock().now())))
        return made[-1]

    yield make
    for worker in made:
        worker.close()


@pytest.fixture
def yard(
    request: pytest.FixtureRequest, new_sqlite_url: Callable[[], str], tmp_path: Path,
    new_worker: Callable[..., FakeWorker],
) -> Iterator[Yard]:  # fmt: skip
    """Parametrize it indirectly with the `Patience` of its gateway."""
    with ExitStack() as stack:
        database = Database(new_sqlite_url())
        stack.callback(database.close)
        clock, sealer, hasher, metrics, table = (
            SystemClock(),
            Sealer(SECRET),
            KeyHasher(SECRET),
            GatewayMetrics(),
            RouteTable(),
        )
        feed = RouteFeed(database, table, sealer, clock)
        patience = getattr(request, "param", Patience(WAKE_SECONDS, 0.2, 0.05))
        inference = byte_path(database, table, feed, hasher, clock, metrics, patience, max_body_bytes=LIMIT)
        proxy = ApiProxy(tmp_path / "api.sock", max_body_bytes=LIMIT)
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        config: dict[str, Any] = {
            "loop": "uvloop",
            "http": GatheringProtocol,
            "lifespan": "on",
            "access_log": False,
            "proxy_headers": False,
        }
        server = uvicorn.Server(
            uvicorn.Config(
                FrontDoor(inference, proxy, feed, metrics, ids.new_id),
                log_level="warning",
                timeout_graceful_shutdown=1,
                **config,
            )
        )
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        built = Yard(database, url, tmp_path / "api.sock", new_worker, hasher, sealer)
        with database.write() as session:
            for org in ("org_1", "org_2"):
                orgs.insert(
                    session,
                    OrgRow(id=org, name=org, tier="enterprise", credit_limit_microdollars=None, created_at=clock.now()),
                )
        built.key = built.add_key()
        thread.start()
        while not server.started:
            assert thread.is_alive()
            thread.join(0.005)

        def stop() -> None:
            server.should_exit = True
            thread.join(60)
            assert not thread.is_alive()

        built.stop = stop
        yield built
        stop()


@pytest.fixture
def serve_api(yard: Yard) -> Iterator[Callable[[Any], None]]:
    """Starts an ASGI application where the gateway looks for the API."""
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(app: Any) -> None:
        running.append(run_server(app, uds=str(yard.socket_path), lifespan="off"))

    yield start
    for server, thread in running:
        server.should_exit = True
        thread.join(60)
