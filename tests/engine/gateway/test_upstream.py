"""Connections to replicas: kept where HTTP allows it, pinned, and never used again after something odd."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from engine.gateway.upstream import Answer, BadAnswer, BrokeOff, NotReached, Pool, UpstreamError

HEAD = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"


class Server:
    """Answers every request with scripted bytes; counts connections."""

    def __init__(self, script: Callable[[bytes], bytes | None]) -> None:
        self.script, self.connections, self.received = script, 0, 0
        self.closed = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while data := await reader.read(65536):
                self.received += len(data)
                answer = self.script(data) if b" HTTP/1.1\r\n" in data else b""  # of a long body: heads only
                if answer is None:
                    break
                writer.write(answer)
        except ConnectionError:
            pass
        finally:
            writer.close()
            self.closed.set()


@asynccontextmanager
async def serving(script: Callable[[bytes], bytes | None]) -> AsyncIterator[tuple[Pool, Server, str]]:
    server, pool = Server(script), Pool()
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    pool.open()
    try:
        yield pool, server, f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        pool.close()
        listening.close()
        await listening.wait_closed()


async def read(answer: Answer) -> bytes:
    parts = []
    try:
        while part := await answer.part():
            parts.append(part)
    finally:
        answer.close()
    return b"".join(parts)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nh\r\n1\r\ni\r\n0\r\n\r\n"
EARLY_HINT = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
CLOSES = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi"


@pytest.mark.parametrize(
    ("answer", "connections"),
    [(OK, 1), (CHUNKED, 1), (EARLY_HINT + OK, 1), (CLOSES, 3), (OK + OK, 3), (OK + b"rubbish", 3)],
)
async def test_connection_is_used_again_where_that_is_right(answer: bytes, connections: int) -> None:
    async with serving(lambda _: answer) as (pool, server, url):
        for _ in range(3):
            try:
                got = await pool.request(url, "", HEAD, b"")
                assert (got.status, await read(got)) == (200, b"hi")
            except BadAnswer:
                assert answer.endswith(b"rubbish")  # came together with the answer's end
        assert server.connections == connections


async def test_answer_that_nobody_reads_to_its_end_closes_the_connection() -> None:
    async with serving(lambda _: b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi") as (pool, server, url):
        answer = await pool.request(url, "", HEAD, b"")
        assert await answer.part() == b"hi"
        answer.close()
        await asyncio.wait_for(server.closed.wait(), 30)


@pytest.mark.parametrize(
    ("answer", "error"), [(None, BrokeOff), (b"220 mail ready\r\n\r\n", BadAnswer), (b"HTTP/1.1 200 OK\r\n", None)]
)
async def test_what_is_no_answer_is_an_error(answer: bytes | None, error: type[UpstreamError] | None) -> None:
    async with serving(lambda _: answer) as (pool, _, url):
        if error is None:  # a head that never ends: whoever waits may leave
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(pool.request(url, "", HEAD, b""), 0.05)
        else:
            with pytest.raises(error):
                await pool.request(url, "", HEAD, b"")


async def test_answer_that_ends_too_early_is_an_error_and_one_without_a_length_is_not() -> None:
    heads = iter((b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi", b"HTTP/1.0 200 OK\r\n\r\nhi"))
    server_side: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(65536)
        writer.write(next(heads))
        await writer.drain()
        writer.close()
        server_side.append(writer)

    listening, pool = await asyncio.start_server(serve, "127.0.0.1", 0), Pool()
    pool.open()
    url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    with pytest.raises(BrokeOff):
        await read(await pool.request(url, "", HEAD, b""))
    assert await read(await pool.request(url, "", HEAD, b"")) == b"hi"
    pool.close()
    listening.close()
    await listening.wait_closed()


async def test_early_refusal_of_a_long_body_is_passed_on() -> None:
    refusal = b"HTTP/1.1 413 Too Large\r\ncontent-length: 0\r\n\r\n"
    async with serving(lambda _: refusal) as (pool, server, url):
        head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 33554432\r\n\r\n"
        answer = await pool.request(url, "", head, bytes(32 * 2**20))
        assert answer.status == 413
        answer.close()
        await asyncio.wait_for(server.closed.wait(), 30)


async def test_slow_reader_makes_the_replica_wait() -> None:
    size = 16 * 2**20
    async with serving(lambda _: b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + bytes(size)) as (
        pool,
        _,
        url,
    ):
        answer = await pool.request(url, "", HEAD, b"")
        first = await answer.part()
        assert len(first) + sum(map(len, answer._parts)) < 4 * 2**20
        assert len(first) + len(await read(answer)) == size


async def test_nobody_there_is_said_at_once() -> None:
    pool = Pool()
    with pytest.raises(NotReached, match="cannot be reached"):
        await pool.request("http://127.0.0.1:1", "", HEAD, b"")
