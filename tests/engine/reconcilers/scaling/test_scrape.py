"""Reading an agent's metrics over real TLS."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from engine.identity.worker_identity import new_worker_identity
from engine.model.clock import SystemClock
from engine.reconcilers.deployments.probe import Credentials
from engine.reconcilers.scaling.exposition import Gauges
from engine.reconcilers.scaling.scrape import LARGEST_BYTES, AgentMeter

LINE = b'vllm:num_requests_waiting{model_name="m"} 7.0\n'


class Agent:
    """An agent's /metrics, with the answer the test sets."""

    def __init__(self) -> None:
        identity = new_worker_identity("dep_1", SystemClock().now())
        self.pem = identity.certificate_pem + identity.private_key_pem
        self.credentials = Credentials(identity.fingerprint, identity.token)
        self.body = LINE
        self.hangs = False
        self.url = ""

    async def metrics(self, request: web.Request) -> web.Response:
        if self.hangs:
            await asyncio.Event().wait()
        known = request.headers.get("Authorization") == f"Bearer {self.credentials.token}"
        return web.Response(status=200 if known else 401, body=self.body)

    async def read(self, credentials: Credentials | None = None, url: str = "", seconds: float = 5.0) -> Gauges | None:
        async with AgentMeter(timeout_seconds=seconds) as meter:
            return await meter.read(url or self.url, credentials or self.credentials)


@pytest.fixture
async def agent(tmp_path: Path) -> AsyncIterator[Agent]:
    served = Agent()
    (tmp_path / "pem").write_text(served.pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pem")
    app = web.Application()
    app.router.add_get("/metrics", served.metrics)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    served.url = f"https://127.0.0.1:{runner.addresses[0][1]}"
    yield served
    await runner.cleanup()


async def test_gauges_are_read_with_the_pinned_certificate_and_the_token(agent: Agent) -> None:
    assert await agent.read() == Gauges(waiting=7)
    assert await agent.read(Credentials("ab" * 32, agent.credentials.token)) is None, "another certificate"
    assert await agent.read(Credentials(agent.credentials.fingerprint, "wt_other")) is None, "another token"


async def test_agent_that_hangs_is_away_or_never_ends_is_left_alone(agent: Agent) -> None:
    assert await agent.read(url="https://127.0.0.1:1") is None
    agent.body = b"#" * LARGEST_BYTES + LINE
    assert await agent.read() is None
    agent.hangs = True
    assert await agent.read(seconds=0.1) is None
