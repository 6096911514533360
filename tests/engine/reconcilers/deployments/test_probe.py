"""Health checks over real TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from engine.identity.worker_identity import new_worker_identity
from engine.model.clock import SystemClock
from engine.model.workload import WorkerIdentity
from engine.reconcilers.deployments.probe import Credentials, HealthProbe


class Agent:
    """An agent's /healthz, with the answer the test sets."""

    def __init__(self, identity: WorkerIdentity) -> None:
        self.identity = identity
        self.status, self.body = 200, '{"status": "ready"}'
        self.hangs = self.draining = False
        self.url = ""

    async def drain(self, request: web.Request) -> web.Response:
        self.draining = request.path == "/drain"
        return web.json_response({"draining": self.draining, "in_flight": 3})

    async def healthz(self, request: web.Request) -> web.Response:
        if self.hangs:
            await asyncio.Event().wait()
        if request.headers.get("Authorization") != f"Bearer {self.identity.token}":
            return web.Response(status=401, text="no token")
        return web.Response(status=self.status, text=self.body)


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    identity = new_worker_identity("dep_1", SystemClock().now())
    (tmp_path / "pem").write_text(identity.certificate_pem + identity.private_key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pem")
    served = Agent(identity)
    app = web.Application()
    app.router.add_get("/healthz", served.healthz)
    app.router.add_post("/drain", served.drain)
    app.router.add_post("/undrain", served.drain)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    served.url = f"https://127.0.0.1:{runner.addresses[0][1]}"
    yield served
    await runner.cleanup()


async def ask(agent: Agent, credentials: Credentials | None = None, url: str = "") -> tuple[bool, str]:
    own = Credentials(agent.identity.fingerprint, agent.identity.token)
    async with HealthProbe(timeout_seconds=0.5) as probe:
        answer = await probe.measure(url or agent.url, credentials or own)
    return answer.healthy, answer.reason


async def test_200_is_healthy(agent: Agent) -> None:
    assert await ask(agent) == (True, "")


@pytest.mark.parametrize(
    ("body", "in_flight", "models"),
    [
        ('{"status": "ready", "in_flight": 2, "models": ["mine", "other"]}', 2, ("mine", "other")),
        ('{"status": "ready"}', None, None),
        ('["ready"]', None, None),
        ("ready", None, None),
    ],
)
async def test_what_an_agent_has_to_do_and_serves_is_read_where_it_says_so(
    agent: Agent, body: str, in_flight: int | None, models: tuple[str, ...] | None
) -> None:
    agent.body = body
    async with HealthProbe() as probe:
        answer = await probe.measure(agent.url, Credentials(agent.identity.fingerprint, agent.identity.token))
    assert (answer.healthy, answer.in_flight, answer.models) == (True, in_flight, models)


async def test_an_agent_is_told_to_drain_and_says_what_it_has_left(agent: Agent) -> None:
    own = Credentials(agent.identity.fingerprint, agent.identity.token)
    async with HealthProbe() as probe:
        answer = await probe.drain(agent.url, own, draining=True)
        assert (answer.healthy, answer.in_flight, agent.draining) == (True, 3, True)
        await probe.drain(agent.url, own, draining=False)
        assert not agent.draining
        assert not (await probe.drain("https://127.0.0.1:1", own, draining=True)).healthy


async def test_503_is_not_and_the_agents_words_are_kept(agent: Agent) -> None:
    agent.status, agent.body = 503, '{"status": "starting", "reason": "the model server cannot be reached"}'
    assert await ask(agent) == (False, "answers 503: the model server cannot be reached")
    agent.body = "<html>bad gateway</html>"
    assert await ask(agent) == (False, "answers 503: <html>bad gateway</html>")


async def test_another_certificate_is_refused(agent: Agent) -> None:
    healthy, reason = await ask(agent, Credentials("ab" * 32, agent.identity.token))
    assert not healthy and "another certificate" in reason


async def test_a_wrong_token_is_not_healthy(agent: Agent) -> None:
    assert await ask(agent, Credentials(agent.identity.fingerprint, "wt_other")) == (False, "answers 401: no token")


async def test_nobody_there_and_nobody_answering_are_told_apart(agent: Agent) -> None:
    healthy, reason = await ask(agent, url="https://127.0.0.1:1")
    assert (healthy, reason) == (False, "accepts no connections")
    agent.hangs = True
    assert await ask(agent) == (False, "does not answer in time")
