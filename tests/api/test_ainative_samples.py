"""AINative's own samples, run as they are printed; only host and key are changed.

The text is an excerpt of the document with its indentation restored (the copy lost it); a test compares the two.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from api import gateway
from api.settings import Settings
from engine.identity.worker_identity import new_worker_identity
from engine.model.access import Role
from engine.store import keys
from engine.store.byom_tables import ByomModelRow
from engine.store.sealing import Sealer
from engine.store.tables import ApiKeyRow
from engine.store.webhook_tables import SubscriptionRow
from engine.webhooks.address import AddressRule
from engine.webhooks.deliveries import DeliveryLoop
from engine.webhooks.events import Event, publish
from engine.webhooks.sender import WebhookSender
from tests.fakes.fake_worker import FakeWorker
from tests.fakes.gguf_file import whole
from tests.fakes.people import People
from tests.fakes.served_app import served
from tests.fakes.webhook_receiver import receiving

SAMPLES = Path(__file__).parent / "golden" / "ainative-samples.py.txt"
DOCUMENT = Path(__file__).parents[2].parent / "shared" / "seeds" / "ainative-dedicated-deployments.txt"
HOST = "https://api.ainative.studio"
SECRET = "0123456789abcdef0123456789abcdef"
LOOPBACK = AddressRule.of("127.0.0.0/8")
PLACES = {"receiver": "https://your-service.com"}
"""What every reader puts something of their own in the place of."""


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
    kept = {name: "\n".join(line.strip() for line in code.splitlines()) for name, code in samples().items()}
    assert {name for name, code in kept.items() if code not in document} == set()
    marks = ("requests.", "curl ", "import ", "print(", "def ", "while ", "-F ", "}).json()", '{ "model"')
    shown = {line for line in document.splitlines() if line.startswith(marks) or "= requests." in line}
    assert {line for line in shown if line not in "\n".join(kept.values()).splitlines()} == set(), "samples left out"


@dataclass
class Reader:
    """Somebody who copies the samples one after the other into one Python session."""

    url: str
    key: str
    worker: FakeWorker
    api: Any
    session: dict[str, Any]
    said: list[str] = field(default_factory=list)

    def run(self, name: str, **changed: str) -> str:
        """Execute a sample; returns what it printed.

        Args:
            changed: name of a placeholder of `PLACES` → what stands there for this reader.
        """
        code = samples()[name].replace(HOST, self.url).replace("sk_your_key", self.key)
        for place, text in changed.items():
            assert PLACES[place] in code
            code = code.replace(PLACES[place], text)
        self.said.clear()
        self.session["print"] = self._say
        exec(compile(code, f"{SAMPLES}:{name}", "exec"), self.session)
        return "\n".join(self.said)

    def _say(self, *words: object) -> None:
        self.said.append(" ".join(map(str, words)))

    def get(self, path: str) -> Any:
        """What the API answers the reader under the deployment's path."""
        url = f"{self.session['BASE']}/deployments/{self.session['dep']['id']}{path}"
        return httpx.get(url, headers=self.session["H"]).json()


@pytest.fixture
def reader(api: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Reader]:
    """Gateway and API on sockets, a worker behind; what waiting brings is told by hand."""
    settings = Settings(data_dir=tmp_path, secret_key=SECRET)
    sealer: Sealer = api.app.state.deps.sealer
    api.app.state.deps = replace(api.app.state.deps, webhook_rule=LOOPBACK)
    worker = FakeWorker(new_worker_identity("dep_x", api.clock.now()))
    key = api.headers["Authorization"].removeprefix("Bearer ")
    session: dict[str, Any] = {"ORG_ID": "org_1"}

    def wait(seconds: float) -> None:
        """Five seconds make the deployment active, ten more the model that was brought to it ready."""
        replica = {"id": "1", "name": "r1-0", "address": "127.0.0.1", "endpoint": worker.endpoint, "phase": "ready"}
        if seconds == 10:
            replica["models"] = ["my-model-v2"]
            with api.database.write() as database:
                database.get_one(ByomModelRow, session["model_id"]).phase = "ready"
        api.observe(
            session["dep"]["id"], phase="active", observed_generation=1, replicas=[replica],
            worker_fingerprint=worker.identity.fingerprint, worker_token_sealed=sealer.seal(worker.identity.token),
        )  # fmt: skip

    monkeypatch.setattr(time, "sleep", wait)
    with ExitStack() as stack:
        stack.callback(worker.close)
        stack.enter_context(served(api.app, at=settings.api_socket))
        url = stack.enter_context(served(gateway.build(settings, api.database), lifespan="on"))
        yield Reader(url, key, worker, api, session)


def test_samples_run_from_create_to_teardown(reader: Reader) -> None:
    dep_id, status = reader.run("create").split()
    assert dep_id.startswith("dep_") and status == "provisioning"
    assert reader.run("poll") == f"Ready: http://yard.test/api/v1/public/deployments/{dep_id}"
    assert reader.run("inference") == "Gradient descent walks downhill."
    assert b'"max_tokens": 512' in reader.worker.seen[0].body

    reader.run("preset")
    tuned = reader.get("")
    assert (tuned["preset"], tuned["gpu_type"]) == ("speed", "h100") and "--max-num-seqs" in tuned["serving"][
        "vllm_args"
    ]

    reader.run("scaling")
    assert reader.get("/scaling").items() >= {
        "min_replicas": 1, "max_replicas": 4, "scale_to_zero": True, "idle_timeout_seconds": 300,
    }.items()  # fmt: skip

    reader.run("sla")
    assert reader.get("/sla").items() >= {
        "ttft_target_ms": 500, "throughput_target_tps": 100, "concurrency_limit": 50,
    }.items()  # fmt: skip
    assert reader.run("sla status").split() == ["0", "None"], "nothing was measured yet"

    reader.run("org")
    assert reader.session["response"].status_code == 200
    assert reader.run("billing") == "$4.41/hr × 730 = $3219.30/mo projected"

    reader.run("teardown")
    assert reader.get("")["status"] == "teardown"
    refused = httpx.post(
        f"{reader.session['BASE']}/deployments/{dep_id}/chat/completions", headers=reader.session["H"], json={}
    )
    assert refused.status_code == 409 and refused.json()["error"]["details"]["status"] == "teardown"


async def test_samples_subscribe_and_verify_what_comes(reader: Reader) -> None:
    async with receiving() as receiver, WebhookSender(LOOPBACK, reader.api.clock) as sender:
        await asyncio.to_thread(reader.run, "create")
        await asyncio.to_thread(reader.run, "webhooks", receiver=receiver.url.removesuffix("/hook"))
        [hook] = (await asyncio.to_thread(reader.get, "/webhooks"))["data"]
        assert len(hook["events"]) == 5
        sealer: Sealer = reader.api.app.state.deps.sealer
        dep_id = reader.session["dep"]["id"]
        with reader.api.database.write() as session:
            publish(session, sealer, org_id="org_1", deployment_id=dep_id, event=Event.ACTIVE, data={}, key="1",
                    now=reader.api.clock.now())  # fmt: skip
            secret = sealer.open(session.get_one(SubscriptionRow, hook["id"]).secret_sealed)
        loop = DeliveryLoop(reader.api.database, sealer, sender, reader.api.clock)
        await loop.round()
        await loop.settled()
    [(path, headers, body)] = receiver.got
    reader.run("verify")
    verify = reader.session["verify_webhook"]
    assert path == "/hooks/ainative" and json.loads(body)["type"] == "deployment.active"
    assert verify(body, headers["x-stackyard-signature"], secret)
    assert not verify(body + b" ", headers["x-stackyard-signature"], secret)


def test_samples_scope_a_customers_key(reader: Reader) -> None:
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
    headers = {"Authorization": f"Bearer {new.secret}"}

    def call(deployment_id: str, method: str = "POST", path: str = "/chat/completions") -> int:
        url = f"{base}/deployments/{deployment_id}{path}"
        return httpx.request(method, url, headers=headers, json={"messages": []}).status_code

    assert call(mine) == 200
    reader.run("grant")
    assert (call(mine), call(other)) == (200, 403)
    assert [call(mine, "GET", path) for path in ("", "/scaling", "/webhooks")] == [403] * 3, "inference and no more"
    refused = httpx.post(f"{base}/deployments/{other}/chat/completions", headers=headers, json={"messages": []}).json()
    assert refused["error"]["code"] == "forbidden" and refused["error"]["details"] == {
        "permission": "deployment:invoke"
    }
    reader.run("revoke")
    assert (call(mine), call(other)) == (403, 403)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on PATH")
def test_samples_bring_own_weights_and_call_them(reader: Reader, tmp_path: Path) -> None:
    reader.run("create")
    reader.run("poll")
    (tmp_path / "my-finetune-7b.gguf").write_bytes(whole(1 << 20))
    command = (
        samples()["own weights: upload"].replace(HOST, reader.url).replace("dep_abc123", reader.session["dep"]["id"])
    )
    done = subprocess.run(
        ["bash", "-ec", command], cwd=tmp_path, env=os.environ | {"AINATIVE_API_KEY": reader.key}, check=True,
        timeout=60, capture_output=True,
    )  # fmt: skip
    made = json.loads(done.stdout)
    assert made["status"] == "distributing", made
    reader.session["model_id"] = made["id"]
    reader.run("own weights: poll")
    assert reader.session["m"]["status"] == "ready"
    body = samples()["own weights: call"].replace("[...]", '[{"role": "user", "content": "Hello"}]')
    url = f"{reader.session['BASE']}/deployments/{reader.session['dep']['id']}/chat/completions"
    answer = httpx.post(url, headers=reader.session["H"], json=json.loads(body))
    assert answer.status_code == 200, answer.text
    assert reader.worker.seen[-1].headers["x-stackyard-model"] == "byom:my-model-v2"


def test_org_sample_needs_membership_and_the_permission(reader: Reader) -> None:
    """Not members of the organisation are told nothing of it; members without the permission, what they lack."""
    people = People(reader.api.database, reader.api.hasher, reader.api.clock.now())
    stranger, viewer, developer = (
        people.key(org, people.user(name, **{org: role}))[1]
        for name, org, role in (
            ("stranger", "org_2", Role.OWNER), ("viewer", "org_1", Role.VIEWER), ("developer", "org_1", Role.DEVELOPER),
        )
    )  # fmt: skip
    reader.run("create")
    reader.run("poll")
    asked = []
    for headers in (stranger, viewer, developer):
        reader.session["H"] = headers
        reader.run("org")
        asked.append(reader.session["response"])
    assert [answer.status_code for answer in asked] == [404, 403, 200]
    assert asked[1].json()["error"]["details"] == {"permission": "deployment:invoke"}


def test_sample_that_streams_gets_server_sent_events(reader: Reader) -> None:
    reader.run("create")
    reader.run("poll")
    code = samples()["inference"].replace('"stream": False', '"stream": True').rsplit("\n", 1)[0]
    exec(code, reader.session)
    response = reader.session["response"]
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text.endswith("data: [DONE]\n\n")
