"""Uvicorn's HTTP protocol, but what is written in one turn of the event loop leaves in one piece.

An answer's head and body would be two system calls and two packets otherwise. Nothing is held back for longer.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

_MOST_BYTES = 64 * 1024
"""More than this is not worth copying, and is not to pile up before the transport can ask to wait."""

LONGEST_HEAD = 64 * 1024
"""Of a request's head or trailers; neither uvicorn nor its parser has a limit, and anybody may send them."""

_TOO_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Gathering:
    """A transport that joins writes."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []
        self._size = 0

    def write(self, data: bytes) -> None:
        if len(data) > _MOST_BYTES:
            self._flush()
            self._transport.write(data)
            return
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)
        self._size += len(data)
        if self._size > _MOST_BYTES:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def _flush(self) -> None:
        if not self._parts:
            return
        parts, self._parts, self._size = self._parts, [], 0
        if not self._transport.is_closing():  # it may have closed since
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))


class GatheringProtocol(HttpToolsProtocol):
    """For `uvicorn.Config(http=…)`. Hangs up on heads that do not end."""

    _of_head = 0  # bytes since the message began, or since its last body

    def data_received(self, data: bytes) -> None:
        self._of_head += len(data)
        super().data_received(data)
        if self._of_head > LONGEST_HEAD and not self.transport.is_closing():
            self.transport.write(_TOO_LONG)
            self.transport.close()

    def on_message_begin(self) -> None:
        self._of_head = 0
        super().on_message_begin()

    def on_body(self, body: bytes) -> None:
        self._of_head = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._of_head = 0
        super().on_message_complete()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(cast("asyncio.Transport", Gathering(transport, self.loop)))
