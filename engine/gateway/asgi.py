"""The ASGI messages the gateway sends and receives, as functions. Knows no route."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, MutableMapping
from typing import Any

from engine.identity.sessions import COOKIE
from engine.model.errors import TooLarge

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"proxy-connection", b"te",
     b"trailer", b"transfer-encoding", b"upgrade")
)  # fmt: skip
"""Headers of one connection, never passed on (RFC 9110, section 7.6.1)."""

_SESSION = f"{COOKIE}=".encode()

STATUS_OF_CODE: Mapping[str, int] = {
    "unauthenticated": 401,
    "insufficient_credit": 402,
    "budget_exceeded": 402,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "conflict": 409,
    "payload_too_large": 413,
    "invalid_request": 422,
    "rate_limit_exceeded": 429,
    "bad_gateway": 502,
    "unavailable": 503,
    "insufficient_storage": 507,
}


class ClientGone(Exception):
    """The client closed its connection: nobody is left to answer."""


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first value of a request header; uvicorn hands names in lower case."""
    return next((value for key, value in scope["headers"] if key == name), None)


def has_session(scope: Scope) -> bool:
    """Whether a request comes with a browser session's cookie and without a key."""
    if (header(scope, b"authorization") or b"")[:7].lower() == b"bearer ":
        return False
    return any(key == b"cookie" and _SESSION in value for key, value in scope["headers"])


def end_to_end(headers: Iterable[tuple[bytes, bytes]], *, without: frozenset[bytes] = frozenset()) -> Headers:
    """Headers that may be passed on: neither hop-by-hop, nor named in `Connection`, nor in `without`."""
    headers = [(name.lower(), value) for name, value in headers]
    named = {part.strip().lower() for name, value in headers if name == b"connection" for part in value.split(b",")}
    dropped = HOP_BY_HOP | named | without
    return [(name, value) for name, value in headers if name not in dropped]


async def send_json(send: Send, status: int, body: Any, headers: Headers | None = None) -> None:
    """A whole JSON answer."""
    content = json.dumps(body).encode()
    start = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode()), *(headers or [])]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": content})


def error_body(code: str, message: str, details: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The one error shape."""
    return {"error": {"code": code, "message": message, **({"details": dict(details)} if details else {})}}


async def read_body(scope: Scope, receive: Receive, limit_bytes: int) -> bytes:
    """The whole request body.

    Raises:
        TooLarge: the announced or the received length passes the limit; the rest is not kept.
        ClientGone: the client left before it had sent everything.
    """
    refuse_announced_length(scope, limit_bytes)
    chunks: list[bytes] = []
    size = 0
    while True:
        chunk, more = await next_chunk(receive)
        size += len(chunk)
        if size > limit_bytes:
            raise TooLarge(too_large_message(limit_bytes))
        chunks.append(chunk)
        if not more:
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def next_chunk(receive: Receive) -> tuple[bytes, bool]:
    """The next part of the request body and whether more follows."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    return message.get("body", b""), message.get("more_body", False)


def refuse_announced_length(scope: Scope, limit_bytes: int) -> None:
    """Raise `TooLarge` when `Content-Length` already says so; the HTTP parser has checked that it is a number."""
    if int(header(scope, b"content-length") or 0) > limit_bytes:
        raise TooLarge(too_large_message(limit_bytes))


def too_large_message(limit_bytes: int) -> str:
    return f"the request body is larger than the limit of {limit_bytes} bytes"


async def while_connected(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Run `work` until it ends or the client leaves, in which case it is cancelled at once.

    The request body must have been received: what comes next is the disconnect.

    Raises:
        ClientGone: the client left first.
    """
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnect(receive))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        await working
    finally:
        leaving.cancel()
        working.cancel()
        await asyncio.wait((working, leaving))


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def event(body: Any) -> bytes:
    """A server-sent event of its own, even after one that was cut short."""
    return b"\n\ndata: " + json.dumps(body).encode() + b"\n\n"
