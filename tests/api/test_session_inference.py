"""Inference with a browser session's cookie instead of a key: the gateway asks the API, which knows sessions."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.gateway.api_proxy import ApiProxy
from engine.gateway.feed import RouteFeed
from engine.gateway.front_door import FrontDoor
from engine.gateway.metrics import GatewayMetrics
from engine.gateway.routes import RouteTable
from engine.identity.worker_identity import new_worker_identity
from engine.model import ids
from engine.model.access import Role
from engine.model.clock import SystemClock
from engine.store import deployments, sessions
from tests.fakes.byte_path import byte_path
from tests.fakes.fake_worker import FakeWorker
from tests.fakes.people import People
from tests.fakes.rows import deployment_row
from tests.fakes.served_app import served

LIMIT = 1024 * 1024


@dataclass
class Front:
    """Gateway and API on sockets; one deployment of `org_1` that answers."""

    url: str
    worker: FakeWorker
    people: People

    def chat(self, headers: dict[str, str], dep: str = "dep_1", org: str = "") -> httpx.Response:
        through = f"/orgs/{org}" if org else ""
        url = f"{self.url}/api/v1/public{through}/deployments/{dep}/chat/completions"
        return httpx.post(url, headers=headers, json={"messages": []})


@pytest.fixture
def front(api: Any, tmp_path: Path) -> Iterator[Front]:
    clock, metrics, table = SystemClock(), GatewayMetrics(), RouteTable()
    sealer = api.app.state.deps.sealer
    feed = RouteFeed(api.database, table, sealer, clock)
    inference = byte_path(api.database, table, feed, api.hasher, clock, metrics, max_body_bytes=LIMIT)
    proxy = ApiProxy(tmp_path / "api.sock", max_body_bytes=LIMIT)
    worker = FakeWorker(new_worker_identity("dep_1", clock.now()))
    replica = {"id": "1", "name": "r1-0", "address": "127.0.0.1", "endpoint": worker.endpoint, "phase": "ready"}
    row = deployment_row(
        api.clock.now(), phase="active", replicas=[replica], worker_fingerprint=worker.identity.fingerprint,
        worker_token_sealed=sealer.seal(worker.identity.token),
    )  # fmt: skip
    with api.database.write() as session:
        deployments.insert(session, row)
    with ExitStack() as stack:
        stack.callback(worker.close)
        stack.enter_context(served(api.app, at=tmp_path / "api.sock"))
        door = FrontDoor(inference, proxy, feed, metrics, ids.new_id)
        url = stack.enter_context(served(door, lifespan="on"))
        yield Front(url, worker, People(api.database, api.hasher, api.clock.now()))


def test_members_session_calls_models(front: Front) -> None:
    session = front.people.session(front.people.user("dev", org_1=Role.DEVELOPER))
    assert front.chat(session | {"Stackyard-Org": "org_1"}).status_code == 200
    assert front.chat(session, org="org_1").status_code == 200
    seen = front.worker.seen[-1].headers
    assert not {"cookie", "x-csrf-token", "stackyard-org"} & {name.lower() for name in seen}
    models = f"{front.url}/api/v1/public/orgs/org_1/deployments/dep_1/models"
    assert httpx.get(models, headers={"Cookie": session["Cookie"]}).status_code != 403  # reading needs no token


def test_what_a_session_may_not_is_refused_as_the_api_does(front: Front, api: Any) -> None:
    viewer = front.people.session(front.people.user("viewer", org_1=Role.VIEWER)) | {"Stackyard-Org": "org_1"}
    refused = front.chat(viewer)
    assert refused.status_code == 403 and refused.json()["error"]["details"] == {"permission": "deployment:invoke"}
    stranger = front.people.session(front.people.user("stranger"))
    assert front.chat(stranger, org="org_1").status_code == 404
    dev = front.people.session(front.people.user("dev", org_1=Role.DEVELOPER)) | {"Stackyard-Org": "org_1"}
    assert front.chat(dev, dep="dep_none").status_code == 404
    forged = front.chat({name: value for name, value in dev.items() if name != "X-CSRF-Token"})
    assert forged.status_code == 403 and forged.json()["error"]["details"] == {"reason": "csrf"}
    assert front.chat(dev | {"Origin": "https://evil.example"}).status_code == 403
    with api.database.write() as session:
        sessions.revoke_all(session, "user_dev", api.clock.now())
    assert front.chat(dev).status_code == 401
    assert front.worker.seen == []
