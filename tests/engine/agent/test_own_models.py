"""Own weights on a machine: fetched, checked, served by real llama.cpp servers, ended; and all that may go wrong."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sys
from pathlib import Path

import pytest
from aiohttp import web

import engine
from engine.agent import own_models

ROOT = Path(engine.__file__).parent.parent
TINY = ROOT / "engine/sandbox/weights/stackyard-tiny.gguf"
LLAMA = (
    sys.executable, "-m", "engine.sandbox.llama", "--host", "{host}", "--port", "{port}", "--model-id", "{alias}",
    "--model", "{file}",
)  # fmt: skip
LIMIT = 60.0


@pytest.fixture
async def files(monkeypatch):
    """An HTTP server of bytes: name → what it answers."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    # each agent has a machine to itself; these share one with those of the other test process
    monkeypatch.setattr(own_models, "FIRST_PORT", 10_000 + os.getpid() % 20 * 1000)
    held: dict[str, bytes] = {"/tiny": TINY.read_bytes(), "/noise": b"noise" * 1000}

    async def answer(request: web.Request) -> web.Response:
        if request.path not in held:
            raise web.HTTPForbidden(text="the signed URL has expired")
        return web.Response(body=held[request.path])

    app = web.Application()
    app.router.add_get("/{name}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield held, f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


def order(url: str, content: bytes, **changes: object) -> dict[str, object]:
    facts = {"url": url, "size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "context": 512}
    return facts | changes


async def until(holds) -> None:
    async with asyncio.timeout(LIMIT):
        while True:
            if holds():
                return
            await asyncio.sleep(0.02)


async def settled(client, name: str) -> dict[str, object]:
    """The model once nothing moves any more."""
    async with asyncio.timeout(LIMIT):
        while True:
            _, body = await client.json("GET", "/models")
            found = next((m for m in body["models"] if m["name"] == name), None)
            if found is None or found["state"] in ("ready", "failed"):
                return found or {}
            await asyncio.sleep(0.02)


async def test_model_is_fetched_served_beside_the_other_and_ended(files, worker, start_agent, tmp_path):
    held, url = files
    client = await start_agent(worker.port, llama_command=LLAMA, own_weights_gib=4.5)
    status, body = await client.json("PUT", "/models/my-model-v2", json=order(f"{url}/tiny", held["/tiny"]))
    assert (status, body["attempts"]) == (202, 1)
    assert (await settled(client, "my-model-v2"))["state"] == "ready"
    status, again = await client.json("PUT", "/models/my-model-v2", json=order("http://nowhere", held["/tiny"]))
    assert (status, again["state"]) == (202, "ready")  # again: no change
    _, health = await client.json("GET", "/healthz")
    assert (health["models"], health["status"]) == (["my-model-v2"], "ready")
    _, listed = await client.json("GET", "/v1/models")
    assert [m["id"] for m in listed["data"]] == ["demo/model", "byom:my-model-v2"]
    assert (await client.json("GET", "/models"))[1]["room_gib"] == 4.5

    named = {"X-Stackyard-Model": "byom:my-model-v2"}
    chat = {"model": "byom:my-model-v2", "messages": [{"role": "user", "content": "Hello!"}], "temperature": 0}
    status, said = await client.json("POST", "/v1/chat/completions", json=chat, headers=named)
    assert status == 200 and "sandbox" in said["choices"][0]["message"]["content"]
    assert said["model"] == "byom:my-model-v2"
    async with client.request("POST", "/v1/echo", data=b"{}") as answer:
        assert answer.status == 418  # without the header: the machine's own model server
    other = {"X-Stackyard-Model": "byom:other"}
    status, body = await client.json("POST", "/v1/chat/completions", json=chat, headers=other)
    assert (status, body["error"]["code"]) == (503, "worker_unreachable")

    folder = tmp_path / "var/lib/stackyard/models"
    assert sorted(path.name for path in folder.iterdir()) == ["my-model-v2.gguf", "my-model-v2.json"]
    status, body = await client.json("DELETE", "/models/my-model-v2")
    assert (status, body) == (200, {"dropped": True})
    await until(lambda: not list(folder.iterdir()))
    assert (await client.json("GET", "/models"))[1]["models"] == []
    assert (await client.json("DELETE", "/models/my-model-v2"))[1] == {"dropped": False}


async def test_machine_of_own_weights_alone_is_ready_when_they_are_and_after_a_restart(
    files, start_agent, free_port, tmp_path
):
    held, url = files
    made = {"engine": "llama.cpp", "model_id": "byom:solo", "llama_command": LLAMA}
    client = await start_agent(free_port(), **made)
    status, body = await client.json("GET", "/healthz")
    assert (status, body["status"]) == (503, "starting")
    assert body["reason"] == "byom:solo was not sent to this machine yet"
    await client.json("PUT", "/models/solo", json=order(f"{url}/tiny", held["/tiny"]))
    assert (await settled(client, "solo"))["state"] == "ready"
    assert (await client.json("GET", "/healthz"))[0] == 200
    chat = {"messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 4}
    assert (await client.json("POST", "/v1/chat/completions", json=chat))[0] == 200  # no header: its only model
    assert [m["id"] for m in (await client.json("GET", "/v1/models"))[1]["data"]] == ["byom:solo"]
    async with client.request("GET", "/metrics") as answer:
        assert "llamacpp:" in await answer.text()

    await client.agent.close()
    held.clear()  # what is on the disk is enough
    again = await start_agent(free_port(), **made)
    again.agent.begin()
    assert (await settled(again, "solo"))["state"] == "ready"


@pytest.mark.parametrize(
    ("path", "changes", "words"),
    [
        ("/tiny", {"sha256": "0" * 64}, "the SHA-256 of what was fetched is"),
        ("/tiny", {"size": 10}, "has more than the 10 bytes"),
        ("/tiny", {"size": 3_000_000}, "ended after 2126432 of 3000000 bytes"),
        ("/tiny", {"size": 2**43}, "the machine's disk is full"),
        ("/gone", {}, "the download answers 403: the signed URL has expired"),
        ("/noise", {}, "it does not load: its server ended with exit code 2"),
    ],
)
async def test_what_fails_says_why_and_can_be_sent_again(files, worker, start_agent, path, changes, words):
    held, url = files
    client = await start_agent(worker.port, llama_command=LLAMA)
    body = order(url + path, held.get(path, b"x"), **changes)
    await client.json("PUT", "/models/m", json=body)
    found = await settled(client, "m")
    assert found["state"] == "failed" and words in str(found["reason"])
    assert (await client.json("PUT", "/models/m", json=body))[1]["attempts"] == 2
    right = order(f"{url}/tiny", held["/tiny"])
    assert (await client.json("PUT", "/models/m", json=right))[1]["attempts"] == 1  # another file
    assert (await settled(client, "m"))["state"] == "ready"


async def test_server_that_ends_is_started_again(files, worker, start_agent, monkeypatch):
    monkeypatch.setattr(own_models, "_RESTART_SECONDS", 0.01)
    held, url = files
    client = await start_agent(worker.port, llama_command=LLAMA)
    await client.json("PUT", "/models/m", json=order(f"{url}/tiny", held["/tiny"]))
    await settled(client, "m")
    model = client.agent._models._models["m"]
    first = model.process
    first.kill()
    await until(lambda: model.process not in (first, None) and model.state == "ready")


async def test_what_cannot_be_is_refused(worker, start_agent):
    client = await start_agent(worker.port)
    right = {"url": "http://x", "size": 1, "sha256": "0" * 64, "context": 1}
    status, body = await client.json("PUT", "/models/m", json=right)
    assert (status, body["error"]["message"]) == (400, "this machine was not made for own weights")
    for bad in (right | {"url": "file:///etc/passwd"}, right | {"sha256": "x"}, right | {"size": True}, [], "x"):
        assert (await client.json("PUT", "/models/m", json=bad))[0] == 400, bad
    assert (await client.json("PUT", "/models/..%2Fm", json=right))[0] in (400, 404)
    assert (await client.json("GET", "/models", token="wrong"))[0] == 401
