"""AINative's own samples and the `openai` client against a real installation: real gateway, stack, agent and model."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from engine.proof.installation import Installation, await_until

pytestmark = pytest.mark.e2e

SAMPLES = Path(__file__).parents[1] / "api" / "golden" / "ainative-samples.py.txt"
HOST = "https://api.ainative.studio"


class Receiver:
    """`your-service.com`: takes whatever comes, and remembers it."""

    def __init__(self) -> None:
        self.got: list[tuple[str, bytes]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.got.append((self.headers["x-stackyard-signature"], body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def events(self) -> list[str]:
        return [json.loads(body)["type"] for _, body in self.got]


class Reader:
    """Somebody who copies the document's samples one after the other into one Python session."""

    def __init__(self, installation: Installation, receiver: Receiver) -> None:
        self._installation, self._receiver = installation, receiver
        text = SAMPLES.read_text().split("# --- ")[1:]
        self._code = {name: code for name, _, code in (part.partition("\n") for part in text)}
        self.session: dict[str, Any] = {}

    def run(self, name: str) -> None:
        """Execute one sample with hosts and key changed."""
        code = self._code[name].replace(HOST, self._installation.url).replace("sk_your_key", self._installation.api_key)
        code = code.replace("https://your-service.com", self._receiver.url)
        exec(compile(code, name, "exec"), self.session)

    def view(self) -> dict[str, Any]:
        found: dict[str, Any] = httpx.get(
            f"{self.session['BASE']}/deployments/{self.session['dep']['id']}", headers=self.session["H"]
        ).json()
        return found


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def test_samples_run_against_a_real_installation(
    installation: Installation, receiver: Receiver, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pause = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: pause(min(seconds, 0.1)))
    reader = Reader(installation, receiver)
    reader.run("create")
    dep_id, status = capsys.readouterr().out.split()
    assert dep_id.startswith("dep_") and status == "provisioning"
    reader.run("webhooks")
    reader.run("poll")
    ready = capsys.readouterr().out
    assert ready.startswith("Ready: ")
    reader.run("inference")
    assert "downhill" in capsys.readouterr().out
    openai_client_talks(installation, ready.removeprefix("Ready: ").strip())
    preset_replaces_the_machine_without_a_pause(installation, reader)
    webhooks_can_be_verified(reader, receiver)
    reader.run("scaling")
    reader.run("sla")
    reader.run("sla status")
    capsys.readouterr()
    reader.run("billing")
    assert capsys.readouterr().out == "$4.41/hr × 730 = $3219.30/mo projected\n"
    reader.run("teardown")
    await_until(lambda: reader.view()["status"] == "inactive", seconds=60, what="the teardown")
    assert installation.droplets() == []


def preset_replaces_the_machine_without_a_pause(installation: Installation, reader: Reader) -> None:
    """The model answers all the while, first from the old machine, then from one with the preset's options."""
    [old] = [droplet["name"] for droplet in installation.droplets()]
    reader.run("preset")

    def replaced() -> bool:
        reader.run("inference")
        assert reader.session["response"].status_code == 200, reader.session["response"].text
        names = [droplet["name"] for droplet in installation.droplets()]
        return len(names) == 1 and names != [old] and reader.view()["status"] == "active"

    await_until(replaced, seconds=120, what="the replacement")
    assert reader.view()["preset"] == "speed"


def webhooks_can_be_verified(reader: Reader, receiver: Receiver) -> None:
    """Who makes a new secret and asks for a ping finds it signed as the document says."""
    await_until(lambda: "deployment.active" in receiver.events(), seconds=60, what="deployment.active")
    base, headers = f"{reader.session['BASE']}/deployments/{reader.session['dep']['id']}/webhooks", reader.session["H"]
    [hook] = httpx.get(base, headers=headers).json()["data"]
    secret = httpx.post(f"{base}/{hook['id']}/secret/rotate", headers=headers).json()["secret"]
    assert httpx.post(f"{base}/{hook['id']}/test", headers=headers).status_code == 202
    await_until(lambda: "ping" in receiver.events(), seconds=60, what="the ping")
    reader.run("verify")
    signature, body = receiver.got[receiver.events().index("ping")]
    assert reader.session["verify_webhook"](body, signature, secret)


def openai_client_talks(installation: Installation, endpoint_url: str) -> None:
    """`endpoint_url` and a key are all the client needs; answers come whole and as a stream."""
    with openai.OpenAI(base_url=endpoint_url, api_key=installation.api_key) as client:
        asked: dict[str, Any] = {
            "model": "llama-3.3-70b-instruct",
            "messages": [{"role": "user", "content": "Hello!"}],
            "max_tokens": 40,
        }
        whole = client.chat.completions.create(**asked)
        assert "sandbox" in (whole.choices[0].message.content or "")
        stream = client.chat.completions.create(**asked, stream=True)
        pieces = [chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices]
        assert len([p for p in pieces if p]) > 5
        listed = client.models.list()
        assert [m.id for m in listed.data] == ["llama-3.3-70b-instruct"]
