from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from engine.gateway.gathering import LONGEST_HEAD, Gathering, GatheringProtocol


class Recorder(asyncio.Transport):
    """Remembers what was written, each piece apart."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.written: list[bytes] = []
        self.is_closed = self.is_paused = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.is_closed
        self.written.append(bytes(data))

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed

    def pause_reading(self) -> None:
        self.is_paused = True


async def test_what_is_written_in_one_turn_leaves_in_one_piece() -> None:
    under = Recorder()
    gathering = Gathering(under, asyncio.get_running_loop())
    gathering.write(b"head ")
    gathering.write(b"body")
    assert under.written == []
    await asyncio.sleep(0)
    assert under.written == [b"head body"]
    gathering.write(b"more")
    await asyncio.sleep(0)
    assert under.written == [b"head body", b"more"]
    assert gathering.get_extra_info("peername") == ("127.0.0.1", 1)


async def test_much_is_not_held_back() -> None:
    under, large = Recorder(), b"x" * 100_000
    gathering = Gathering(under, asyncio.get_running_loop())
    gathering.write(b"head")
    gathering.write(large)
    assert under.written == [b"head", large]
    for _ in range(3):
        gathering.write(b"y" * 30_000)
    assert under.written[2:] == [b"y" * 90_000]
    await asyncio.sleep(0)
    assert len(under.written) == 3


async def test_closing_writes_the_rest_and_nothing_is_written_after_it() -> None:
    under = Recorder()
    gathering = Gathering(under, asyncio.get_running_loop())
    gathering.write(b"last")
    gathering.close()
    assert under.written == [b"last"]
    gathering.write(b"too late")
    await asyncio.sleep(0)
    assert under.written == [b"last"]
    assert gathering.is_closing()


async def _reads(scope: Any, receive: Any, send: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue


@asynccontextmanager
async def connection() -> AsyncIterator[tuple[GatheringProtocol, Recorder]]:
    config, state = uvicorn.Config(_reads, interface="asgi3", log_config=None), ServerState()
    config.load()
    protocol, under = GatheringProtocol(config, state, {}, asyncio.get_running_loop()), Recorder()
    protocol.connection_made(under)
    yield protocol, under
    protocol.connection_lost(None)
    await asyncio.gather(*state.tasks)


@pytest.mark.parametrize("start", [
    b"GET / HTTP/1.1\r\nhost: a\r\nx: ",
    b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx: ",
])  # fmt: skip
async def test_head_or_trailers_without_end_are_hung_up_on(start: bytes) -> None:
    async with connection() as (protocol, under):
        protocol.data_received(start)
        for _ in range(LONGEST_HEAD // 4096 + 1):
            protocol.data_received(b"y" * 4096)
        assert under.is_closed and under.written[-1].startswith(b"HTTP/1.1 431 ")


async def test_long_bodies_are_no_heads() -> None:
    async with connection() as (protocol, under):
        protocol.data_received(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\n")
        for _ in range(5):
            protocol.data_received(b"y" * 2 * LONGEST_HEAD)
        assert not under.is_closed and under.is_paused
