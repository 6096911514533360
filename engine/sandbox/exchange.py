"""One ASGI request and its answer: reading, writing, holding and breaking the connection. Knows no routes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qsl

from engine.sandbox.errors import ApiError
from engine.sandbox.routing import Reply

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

MAX_BODY_BYTES = 1 << 20
"""A create with ten names and 64 KiB of user-data is far below it."""


class ConnectionDropped(ConnectionError):
    """The fault asks for a connection that dies, and the server underneath offers no way to kill it."""


def _encode(body: object) -> bytes:
    if body is None:
        return b""
    return body.encode() if isinstance(body, str) else json.dumps(body, separators=(",", ":")).encode()


class Exchange:
    """One ASGI request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.query = dict(parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True))

    @property
    def scope(self) -> Scope:
        """The request's line and headers."""
        return self._scope

    @property
    def receive(self) -> Receive:
        """For who reads the body piece by piece."""
        return self._receive

    @property
    def origin(self) -> str:
        """Scheme, host and port as the client wrote them."""
        return f"{self._scope.get('scheme', 'http')}://{self.header(b'host') or 'api.digitalocean.com'}"

    def header(self, name: bytes) -> str:
        """A header's value, or nothing."""
        return next((v.decode("latin-1") for k, v in self._scope["headers"] if k == name), "")

    async def read(self) -> bytes:
        """The whole body."""
        body: bytes = b""
        while True:
            message = await self._receive()
            part: bytes = message.get("body", b"")
            body += part
            if len(body) > MAX_BODY_BYTES:
                raise ApiError(413, "payload_too_large", f"The request body is over {MAX_BODY_BYTES} bytes.")
            if message["type"] == "http.disconnect" or not message.get("more_body"):
                return body

    async def write(self, reply: Reply) -> None:
        """Send the answer."""
        raw = _encode(reply.body)
        headers = [(k.encode(), v.encode()) for k, v in reply.headers.items()]
        if isinstance(reply.body, str):
            headers.append((b"content-type", b"application/yaml"))
        elif raw or reply.status == 204:
            headers.append((b"content-type", b"application/json; charset=utf-8"))
        if reply.status != 204:
            headers.append((b"content-length", str(len(raw)).encode()))
        await self._send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": raw})

    async def write_raw(
        self, status: int, headers: Mapping[str, str], body: bytes, stream: AsyncIterator[bytes] | None = None
    ) -> None:
        """Send an answer as it is, and after `body` what the stream brings, as long as somebody takes it."""
        raw = [(k.encode("latin-1"), v.encode("latin-1", "replace")) for k, v in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})
        await self._send({"type": "http.response.body", "body": body, "more_body": stream is not None})
        if stream is None:
            return
        async for block in stream:
            if self._is_gone():
                return
            await self._send({"type": "http.response.body", "body": block, "more_body": True})
        await self._send({"type": "http.response.body", "body": b""})

    def _is_gone(self) -> bool:
        transport = self._transport()
        return transport is not None and bool(transport.is_closing())

    def _transport(self) -> Any:
        return self._scope.get("extensions", {}).get("sandbox", {}).get("transport")

    async def hold(self, pause: Coroutine[Any, Any, None]) -> None:
        """Wait, but not for a client that has gone."""
        waiting = {asyncio.create_task(pause), asyncio.create_task(self._gone())}
        _, left = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in left:
            task.cancel()

    async def _gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def kill(self) -> None:
        """Break the connection without an answer."""
        transport = self._transport()
        if transport is None:
            raise ConnectionDropped("the connection is dropped on purpose")
        transport.abort()
        await self._gone()
