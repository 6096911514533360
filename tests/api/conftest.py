from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from api.app import create_app
from api.deps import Deps
from engine.identity.issue import issue_key
from engine.identity.keys import KeyHasher
from engine.model import ids
from engine.model.deployment import Replica
from engine.model.errors import Unavailable
from engine.store import changes, leases, orgs
from engine.store.database import Database
from engine.store.sealing import Sealer
from engine.store.tables import DeploymentRow, OrgRow
from tests.fakes.identity import Promotions, ReadableMail, ReadableSms, identity_for_tests
from tests.fakes.storage import disk_storage

SECRET = b"0123456789abcdef0123456789abcdef"
PUBLIC = "/api/v1/public"
CREATE: dict[str, Any] = {
    "name": "prod-llama-70b",
    "model_id": "llama-3.3-70b-instruct",
    "gpu_type": "h100",
    "region": "nyc2",
    "replicas": 1,
}


@dataclass
class SteppingClock:
    """A clock that stands still until a test moves it."""

    time: datetime = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time

    def monotonic(self) -> float:
        return self.time.timestamp()

    async def sleep(self, seconds: float) -> None:
        self.time += timedelta(seconds=seconds)


@dataclass
class FakeLogs:
    """Lines per replica name; a replica without lines does not answer."""

    lines: dict[str, list[str]] = field(default_factory=dict)

    async def tail(self, deployment: DeploymentRow, replica: Replica, lines: int) -> Sequence[str]:
        if replica.name not in self.lines:
            raise Unavailable(f"replica {replica.name} does not answer")
        return self.lines[replica.name][-lines:]


@dataclass
class FakeStacks:
    """Checkpoint resources per stack."""

    states: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def resources(self, stack: str) -> list[dict[str, Any]] | None:
        return self.states.get(stack)


@dataclass
class Api:
    """The application in process, its parts, and a key of tenant `org_1`."""

    app: FastAPI
    client: TestClient
    database: Database
    clock: SteppingClock
    logs: FakeLogs
    stacks: FakeStacks
    hasher: KeyHasher
    headers: dict[str, str]
    mail: ReadableMail
    sms: ReadableSms
    promotions: Promotions

    def call(self, method: str, path: str, **options: Any) -> Any:
        options.setdefault("headers", self.headers)
        return self.client.request(method, PUBLIC + path, **options)

    def create(self, **changed: Any) -> dict[str, Any]:
        answer = self.call("POST", "/deployments", json=CREATE | changed)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    def headers_of(self, org_id: str) -> dict[str, str]:
        with self.database.write() as session:
            _, secret = issue_key(
                session, self.hasher, key_id=ids.new_id("key"), org_id=org_id, name="k", now=self.clock.now()
            )
        return {"Authorization": f"Bearer {secret}"}

    def observe(self, deployment_id: str, **values: Any) -> None:
        """Write status columns, as the reconciler would."""
        with self.database.write() as session:
            row = session.get_one(DeploymentRow, deployment_id)
            for name, value in values.items():
                setattr(row, name, value)
            changes.record(session, changes.DEPLOYMENT, deployment_id, self.clock.now())

    def activate(self, deployment_id: str, replicas: int = 1) -> None:
        ready = [
            {"id": str(i), "name": f"r1-{i}", "address": host, "endpoint": f"https://{host}:8443", "phase": "ready"}
            for i in range(replicas)
            if (host := f"127.0.0.{i + 2}")
        ]
        with self.database.read() as session:
            generation = session.get_one(DeploymentRow, deployment_id).generation
        self.observe(deployment_id, phase="active", observed_generation=generation, replicas=ready)

    def start_worker(self) -> None:
        with self.database.write() as session:
            leases.acquire(session, leases.executor_lease("worker-1"), "worker-1", 30, self.clock.now())


@pytest.fixture(scope="session")
def app() -> FastAPI:
    """The application, built once for the tests of a process: what it works with comes from its state per request."""
    return create_app(SimpleNamespace(clock=SteppingClock()))  # type: ignore[arg-type]


@pytest.fixture
def api(store: Database, app: FastAPI, tmp_path: Path) -> Iterator[Api]:
    database = store
    clock, logs, stacks, hasher = SteppingClock(), FakeLogs(), FakeStacks(), KeyHasher(SECRET)
    with database.write() as session:
        for org in ("org_1", "org_2"):
            orgs.insert(
                session,
                OrgRow(id=org, name=org, tier="enterprise", credit_limit_microdollars=None, created_at=clock.now()),
            )
    mail, sms, promotions = ReadableMail(), ReadableSms(), Promotions()
    app.state.deps = Deps(
        database=database, hasher=hasher, sealer=Sealer(SECRET), clock=clock, new_id=ids.new_id,
        public_url="http://yard.test", logs=logs, stacks=stacks,
        identity=identity_for_tests(database, clock, mail=mail, sms=sms, promotions=promotions),
        storage=disk_storage(database, clock, tmp_path / "storage").service,
    )  # fmt: skip
    with TestClient(app, raise_server_exceptions=False) as client:
        built = Api(app, client, database, clock, logs, stacks, hasher, {}, mail, sms, promotions)
        built.headers = built.headers_of("org_1")
        yield built
