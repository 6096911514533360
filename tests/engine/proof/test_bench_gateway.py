"""The parts of the gateway's bench: load counts what was answered, the upstream is an agent's, the rows are served."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from engine.gateway.feed import RouteFeed
from engine.gateway.routes import RouteTable
from engine.identity.installation_secret import load_or_create
from engine.identity.keys import KeyHasher
from engine.model.clock import SystemClock
from engine.model.errors import Unavailable
from engine.proof import gateway_peers, gateway_yard
from engine.proof.bench_gateway import LIMITS, to_json
from engine.proof.bench_jobs import Found
from engine.proof.fake_openai import Answers, Connection
from engine.proof.http_load import request
from engine.proof.paced_load import Streams, Target, at_rate, most_per_second, percentile_ms
from engine.store.sealing import Sealer

CLOCK = SystemClock()


class Watched(Connection):
    """A connection whose end can be waited for."""

    def __init__(self, answers: Answers, token: str, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(answers, token, loop)
        self.ended = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.ended.set()


@pytest.fixture
async def upstream() -> AsyncIterator[int]:
    """The plain port of an upstream that demands the token `t`; streams of three events, 10 ms apart."""
    loop = asyncio.get_running_loop()
    answers = Answers(tokens=3, pace_seconds=0.01)
    made: list[Watched] = []

    def connect() -> Watched:
        made.append(Watched(answers, "t", loop))
        return made[-1]

    server = await loop.create_server(connect, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    async with asyncio.timeout(30):
        for one in made:
            await one.ended.wait()


def _target(port: int, *, token: str = "t", **body: object) -> Target:
    return Target(port, request("POST", "/v1/chat/completions", [("authorization", f"Bearer {token}")],
                                json.dumps(body).encode()))  # fmt: skip


async def test_load_is_as_much_as_is_answered(upstream: int) -> None:
    assert await most_per_second(_target(upstream), CLOCK, connections=2, seconds=0.2) > 100


async def test_load_keeps_its_rate(upstream: int) -> None:
    took = await at_rate(_target(upstream, pad="x" * 300_000), CLOCK, per_second=200, connections=4, seconds=0.25)
    assert len(took) == 45  # the first tenth warms up
    assert 0 < percentile_ms(took, 50) <= percentile_ms(took, 99)


async def test_streams_open_again_when_they_end(upstream: int) -> None:
    streams = Streams(_target(upstream, stream=True), CLOCK, count=5, spread_seconds=0.02)
    await streams.open()
    waited = await streams.first_bytes(0.3)
    await streams.close()
    assert len(waited) > 5
    assert all(0 < seconds < 0.3 for seconds in waited)


async def test_a_refusal_is_no_answer(upstream: int) -> None:
    with pytest.raises(Unavailable, match="401"):
        await at_rate(_target(upstream, token="another"), CLOCK, per_second=100, connections=1, seconds=0.05)


def test_the_tenants_deployment_is_served_and_the_other_sleeps(tmp_path: Path) -> None:
    yard = gateway_yard.prepare(tmp_path / "yard", 8443, CLOCK)
    secret, table = load_or_create(yard.data_dir), RouteTable()
    RouteFeed(yard.database, table, Sealer(secret), CLOCK).load()
    caller = table.principal(KeyHasher(secret).hash(yard.key), CLOCK.now())
    assert len(table.admit(caller, yard.awake).upstreams) == 2
    asleep = table.route(yard.asleep)
    assert asleep is not None
    assert not asleep.upstreams
    yard.database.close()


def test_peers_that_are_not_here_say_so(tmp_path: Path) -> None:
    assert "--litellm-python" in gateway_peers.litellm(tmp_path, 1, 2, "").reason
    assert "does not exist" in gateway_peers.litellm(tmp_path, 1, 2, str(tmp_path / "python")).reason


def test_requests_are_held_to_a_multiple_of_litellms() -> None:
    shown = to_json({"gateway_rps": Found(2400.0, "req/s", peer="litellm", peer_value=100.0)})["gateway_rps"]
    assert shown["limit"] == 2500
    assert not shown["held"]
    assert to_json({"stream_kib": Found(80.0, "KiB")})["stream_kib"] == {
        "value": 80.0, "unit": "KiB", "limit": LIMITS["stream_kib"], "held": True,
    }  # fmt: skip
