"""A handler that does nothing, on several ports: what is left of a job's time is ours. Says when requests reach it.

`python -m engine.proof.noop_handler PORT…`
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import uvloop

from engine.model.clock import SystemClock


class _Handler(asyncio.Protocol):
    """Just enough HTTP/1.1: requests with a length, one after the other on a kept connection."""

    def __init__(self, clock: SystemClock) -> None:
        self._clock = clock
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by inheritance

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self._buffer) < end + 4 + length:
                return
            self._buffer = self._buffer[end + 4 + length :]
            body = b'{"output":{"at":%.6f}}' % self._clock.monotonic()
            assert self._transport is not None
            self._transport.write(
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body
            )


async def _serve(ports: list[int]) -> None:
    loop, clock = asyncio.get_running_loop(), SystemClock()
    servers = [await loop.create_server(lambda: _Handler(clock), "127.0.0.1", port) for port in ports]
    await asyncio.gather(*(server.serve_forever() for server in servers))


def main() -> None:
    """Serve until SIGTERM."""
    uvloop.run(_serve([int(port) for port in sys.argv[1:]]))


if __name__ == "__main__":
    main()
