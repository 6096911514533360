"""Logs are read from the agent over TLS that trusts one certificate only."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web

from api.agent_logs import AgentLogs
from engine.identity.worker_identity import new_worker_identity
from engine.model.clock import SystemClock
from engine.model.deployment import Replica
from engine.model.errors import Unavailable
from engine.store.sealing import Sealer
from engine.store.tables import DeploymentRow
from tests.fakes.fake_worker import FakeWorker

SEALER = Sealer(b"0123456789abcdef0123456789abcdef")


class LoggingWorker(FakeWorker):
    """Answers `/logs` as the agent does."""

    async def _logs(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {self.identity.token}":
            return web.json_response({"error": "no"}, status=401)
        lines = [f"line {i}" for i in range(10)][-int(request.query["tail"]) :]
        return web.Response(text="\n".join(lines) + "\n")

    def _routes(self, app: web.Application) -> None:
        super()._routes(app)
        app.router.add_get("/logs", self._logs)


class TricklingWorker(FakeWorker):
    """Sends a byte now and then, for ever."""

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        with contextlib.suppress(ConnectionError):
            while True:
                await answer.write(b"x")
                await asyncio.sleep(0.02)
        return answer

    def _routes(self, app: web.Application) -> None:
        super()._routes(app)
        app.router.add_get("/logs", self._logs)


@pytest.fixture
def worker() -> Iterator[LoggingWorker]:
    made = LoggingWorker(new_worker_identity("dep_x", SystemClock().now()))
    yield made
    made.close()


def row_of(worker: FakeWorker, **changed: str) -> DeploymentRow:
    values: dict[str, Any] = {
        "worker_token_sealed": SEALER.seal(worker.identity.token),
        "worker_certificate_pem": worker.identity.certificate_pem,
    }
    return DeploymentRow(id="dep_x", **(values | changed))


def replica_of(worker: FakeWorker) -> Replica:
    return Replica(id="1", name="r1-0", address="127.0.0.1", endpoint=worker.endpoint)


async def test_last_lines_come_with_the_deployments_token(worker: LoggingWorker) -> None:
    assert await AgentLogs(SEALER).tail(row_of(worker), replica_of(worker), 2) == ["line 8", "line 9"]


async def test_wrong_token_and_wrong_certificate_are_said(worker: LoggingWorker) -> None:
    other = new_worker_identity("dep_y", SystemClock().now())
    with pytest.raises(Unavailable, match=r"r1-0 does not answer.*401"):
        await AgentLogs(SEALER).tail(row_of(worker, worker_token_sealed=SEALER.seal("x")), replica_of(worker), 2)
    with pytest.raises(Unavailable, match="CERTIFICATE_VERIFY_FAILED"):
        await AgentLogs(SEALER).tail(
            row_of(worker, worker_certificate_pem=other.certificate_pem), replica_of(worker), 2
        )


async def test_a_replica_that_trickles_is_given_up_and_frees_its_place() -> None:
    made = TricklingWorker(new_worker_identity("dep_x", SystemClock().now()))
    logs = AgentLogs(SEALER, at_once=1, timeout_seconds=0.3)
    try:
        first, second = await asyncio.gather(
            *(logs.tail(row_of(made), replica_of(made), 2) for _ in range(2)), return_exceptions=True
        )
        assert "within 0.3 s" in str(first) and "too many logs" in str(second)
        with pytest.raises(Unavailable, match=r"within 0.3 s"):
            await logs.tail(row_of(made), replica_of(made), 2)
    finally:
        made.close()
