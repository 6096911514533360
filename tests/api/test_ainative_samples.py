"""AINative's own samples, run as they are printed; only host and key are changed.

The text is an excerpt of the document with its indentation restored (the copy lost it); a test compares the two.
"""

from __future__ import annotations

import time
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
from engine.gateway.inference import Inference
from engine.gateway.metrics import GatewayMetrics
from engine.gateway.routes import RouteTable
from engine.identity.worker_identity import new_worker_identity
from engine.model import ids
from engine.model.clock import SystemClock
from engine.store import keys
from engine.store.sealing import Sealer
from engine.store.tables import ApiKeyRow
from tests.fakes.fake_worker import FakeWorker
from tests.fakes.served_app import served

SAMPLES = Path(__file__).parent / "golden" / "ainative-samples.py.txt"
DOCUMENT = Path(__file__).parents[2].parent / "shared" / "seeds" / "ainative-dedicated-deployments.txt"
HOST = "https://api.ainative.studio"
LIMIT = 32 * 1024 * 1024


def samples() -> dict[str, str]:
    """Name → code, in the order of the document."""
    found: dict[str, list[str]] = {}
    for line in SAMPLES.read_text().splitlines():
        if line.startswith("# --- "):
            lines = found.setdefault(line.removeprefix("# --- "), [])
        else:
            lines.append(line)
    return {name: "\n".join(lines) for name, lines in found.items()}


@pytest.mark.skipif(not DOCUMENT.exists(), reason="the document is not beside this checkout")
def test_samples_are_the_documents_but_for_indentation() -> None:
    document = "\n".join(line.strip() for line in DOCUMENT.read_text().splitlines())
    for name, code in samples().items():
        assert "\n".join(line.strip() for line in code.splitlines()) in document, name


@dataclass
class Reader:
    """Somebody who copies the samples one after the other into one Python session."""

    url: str
    key: str
    worker: FakeWorker
    api: Any
    session: dict[str, Any]

    def run(self, name: str) -> None:
        code = samples()[name].replace(HOST, self.url).replace("sk_your_key", self.key)
        exec(compile(code, f"{SAMPLES}:{name}", "exec"), self.session)


@pytest.fixture
def reader(api: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    """Gateway and API on sockets, a worker behind; waiting five seconds is what makes the deployment active."""
    clock, metrics, table = SystemClock(), GatewayMetrics(), RouteTable()
    sealer: Sealer = api.app.state.deps.sealer
    feed = RouteFeed(api.database, table, sealer, clock)
    inference = Inference(table, feed.fresh, api.hasher, clock, metrics, max_body_bytes=LIMIT)
    proxy = ApiProxy(tmp_path / "api.sock", max_body_bytes=LIMIT)
    worker = FakeWorker(new_worker_identity("dep_x", clock.now()))
    key = api.headers["Authorization"].removeprefix("Bearer ")
    session: dict[str, Any] = {"ORG_ID": "org_1"}

    def become_active(seconds: float) -> None:
        replica = {"id": "1", "name": "r1-0", "address": "127.0.0.1", "endpoint": worker.endpoint, "phase": "ready"}
        api.observe(
            session["dep"]["id"], phase="active", observed_generation=1, replicas=[replica],
            worker_fingerprint=worker.identity.fingerprint, worker_token_sealed=sealer.seal(worker.identity.token),
        )  # fmt: skip

    monkeypatch.setattr(time, "sleep", become_active)
    with ExitStack() as stack:
        stack.callback(worker.close)
        stack.enter_context(served(api.app, at=tmp_path / "api.sock"))
        front = FrontDoor(inference, proxy, feed, metrics, ids.new_id)
        url = stack.enter_context(served(front, lifespan="on"))
        yield Reader(url, key, worker, api, session)


def test_samples_run_from_create_to_teardown(reader: Reader, capsys: pytest.CaptureFixture[str]) -> None:
    reader.run("create")
    dep_id, status = capsys.readouterr().out.split()
    assert dep_id.startswith("dep_") and status == "provisioning"

    reader.run("poll")
    assert capsys.readouterr().out == f"Ready: http://yard.test/api/v1/public/deployments/{dep_id}\n"

    reader.run("inference")
    assert capsys.readouterr().out == "Gradient descent walks downhill.\n"
    assert b'"max_tokens": 512' in reader.worker.seen[0].body

    reader.run("scaling")
    headers = {"Authorization": f"Bearer {reader.key}"}
    scaling = httpx.get(f"{reader.session['BASE']}/deployments/{dep_id}/scaling", headers=headers).json()
    assert scaling.items() >= {
        "min_replicas": 1, "max_replicas": 4, "scale_to_zero": True, "idle_timeout_seconds": 300,
    }.items()  # fmt: skip

    reader.run("org")
    assert reader.session["response"].status_code == 200

    reader.run("billing")
    assert capsys.readouterr().out == "$4.41/hr × 730 = $3219.30/mo projected\n"

    reader.run("teardown")
    gone = httpx.get(f"{reader.session['BASE']}/deployments/{dep_id}", headers=headers).json()
    assert gone["status"] == "teardown"
    refused = httpx.post(f"{reader.session['BASE']}/deployments/{dep_id}/chat/completions", headers=headers, json={})
    assert refused.status_code == 409 and refused.json()["error"]["details"]["status"] == "teardown"


def test_samples_scope_a_customers_key(reader: Reader, capsys: pytest.CaptureFixture[str]) -> None:
    """Each customer reaches its own inference endpoint and no other, at once and also after the grant is gone."""
    api = reader.api
    new = api.hasher.new_key()
    row = ApiKeyRow(id="key_cust_123", org_id="org_1", name="customer", prefix=new.shown_prefix, key_hash=new.key_hash,
                    created_at=api.clock.now())  # fmt: skip
    with api.database.write() as session:
        keys.insert(session, row)
    other = api.create(name="of-another-customer")["id"]
    reader.run("create")
    reader.run("poll")
    mine, base = reader.session["dep"]["id"], reader.session["BASE"]

    def call(deployment_id: str) -> int:
        url = f"{base}/deployments/{deployment_id}/chat/completions"
        return httpx.post(url, headers={"Authorization": f"Bearer {new.secret}"}, json={"messages": []}).status_code

    assert call(mine) == 200
    reader.run("grant")
    assert (call(mine), call(other)) == (200, 403)
    reader.run("revoke")
    assert (call(mine), call(other)) == (403, 403)


def test_sample_that_streams_gets_server_sent_events(reader: Reader) -> None:
    reader.run("create")
    reader.run("poll")
    code = samples()["inference"].replace('"stream": False', '"stream": True').rsplit("\n", 1)[0]
    exec(code, reader.session)
    response = reader.session["response"]
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text.endswith("data: [DONE]\n\n")
