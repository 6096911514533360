"""Hypereal's own curls for jobs, its answers and its webhook: through a gateway, a worker and the delivery loop."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import shlex
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from engine.model.clock import SystemClock
from engine.webhooks import signing
from engine.webhooks.address import AddressRule
from engine.webhooks.deliveries import DeliveryLoop
from engine.webhooks.sender import WebhookSender
from tests.fakes.handler_server import HandlerServer
from tests.fakes.job_yard import Yard

Arrived = list[tuple[str, dict[str, str], bytes]]
"""Path, headers and body of each request."""

SAMPLES = Path(__file__).parent / "golden" / "hypereal-jobs.sh.txt"
DOCUMENT = Path(__file__).resolve().parents[4] / "shared" / "seeds" / "hypereal-infrastructure.txt"


def curls() -> list[str]:
    return [text.strip() for text in SAMPLES.read_text().split("# --- next\n")]


@pytest.mark.skipif(not DOCUMENT.exists(), reason="the document is not beside this checkout")
def test_curls_are_the_documents() -> None:
    assert len(curls()) == 2 and all(text in DOCUMENT.read_text() for text in curls())


def send(text: str, yard: Yard, job_id: str = "") -> httpx.Response:
    """What a curl of the document does; only its host, key and job are others."""
    words = shlex.split(text.replace("\\\n", " "))
    assert words.pop(0) == "curl"
    method, url, headers, body = "GET", "", {}, None
    while words:
        match words.pop(0):
            case "-X":
                method = words.pop(0)
            case "-H":
                name, _, value = words.pop(0).partition(": ")
                headers[name] = value
            case "-d":
                body = words.pop(0)
            case address:
                url = address
    assert headers.pop("Authorization") == "Bearer ck_..."
    url = url.replace("https://hypereal.cloud", yard.url).replace("abc...", job_id)
    return httpx.request(method, url, headers=headers | yard.headers, content=body, timeout=20)


def test_documented_curls_run_a_job_and_poll_it(yard: Yard, server: HandlerServer) -> None:
    yard.add_handler(server, slug="my-flux-lora")
    run, poll = curls()
    accepted = send(run, yard).json()
    assert accepted == {"job_id": accepted["job_id"], "status": "queued"}
    yard.ended(accepted["job_id"])
    ended = send(poll, yard, accepted["job_id"]).json()
    assert ended["status"] == "succeeded" and ended["output"] == {"echo": {"prompt": "a cat astronaut"}}
    assert isinstance(ended["executionMs"], int)


@pytest.fixture
def hook() -> Iterator[tuple[str, Arrived]]:
    """An address for webhooks, and what came there."""
    got: Arrived = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            got.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            return

    server = HTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook?mine=1", got
    server.shutdown()
    thread.join()
    server.server_close()


def test_webhook_tells_the_end_as_documented(yard: Yard, server: HandlerServer, hook: tuple[str, Arrived]) -> None:
    url, got = hook
    yard.add_handler(server, slug="my-flux-lora")
    job_id = yard.run("my-flux-lora", {"n": 1}, webhook_url=url)
    ended = yard.ended(job_id)
    clock = SystemClock()

    async def deliver() -> None:
        async with WebhookSender(AddressRule.of("127.0.0.0/8"), clock) as sender:
            loop = DeliveryLoop(yard.database, yard.sealer, sender, clock)
            assert await loop.round() == 1
            await loop.settled()

    asyncio.run(deliver())
    [(path, headers, body)] = got
    told = {"job_id": job_id, "status": "succeeded", "output": {"echo": {"n": 1}}, "executionMs": ended["executionMs"]}
    assert json.loads(body) == told and headers["content-type"] == "application/json"
    with yard.database.write() as session:
        [key] = signing.keys_of(session, yard.sealer, "org_1", clock.now())
    query = parse_qs(urlsplit(path).query)
    assert query == {"mine": ["1"], "secret": [hmac.new(key.encode(), job_id.encode(), hashlib.sha256).hexdigest()]}
    assert headers["x-stackyard-signature"] == "sha256=" + hmac.new(key.encode(), body, hashlib.sha256).hexdigest()
