"""The ASGI messages the gateway sends and receives, as functions. Knows no route."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, MutableMapping
from typing import Any, cast

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

_ORDINARY = frozenset((b"keep-alive", b"close"))

_SESSION = f"{COOKIE}=".encode()

STATUS_OF_CODE: Mapping[str, int] = {
    "unauthenticated": 401,
    "insufficient_credit": 402,
    "budget_exceeded": 402,
    "forbidden": 403,
    "not_found": 404,
    "model_not_found": 404,
    "method_not_allowed": 405,
    "conflict": 409,
    "payload_too_large": 413,
    "invalid_request": 422,
    "rate_limit_exceeded": 429,
    "bad_gateway": 502,
    "unavailable": 503,
    "wake_timeout": 504,
    "insufficient_storage": 507,
}


LOOK_SECONDS = 0.01


class ClientGone(Exception):
    """The client closed its connection: nobody is left to answer."""


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first value of a request header; uvicorn hands names in lower case."""
    for key, value in scope["headers"]:
        if key == name:
            return cast("bytes", value)
    return None


def has_session(scope: Scope) -> bool:
    """Whether a request comes with a browser session's cookie and without a key."""
    if (header(scope, b"authorization") or b"")[:7].lower() == b"bearer ":
        return False
    return any(key == b"cookie" and _SESSION in value for key, value in scope["headers"])


def end_to_end(headers: Iterable[tuple[bytes, bytes]], *, dropped: frozenset[bytes] = HOP_BY_HOP) -> Headers:
    """Headers that may be passed on, names in lower case: neither named in `Connection` nor in `dropped`.

    Args:
        dropped: `HOP_BY_HOP` and what else the caller writes itself.
    """
    kept: Headers = []
    named: set[bytes] = set()
    for name, value in headers:
        name = name.lower()
        if name == b"connection":
            named.update(part.strip().lower() for part in value.split(b","))
        elif name not in dropped:
            kept.append((name, value))
    return [(name, value) for name, value in kept if name not in named] if named - _ORDINARY else kept


async def send_json(send: Send, status: int, body: Any, headers: Headers | None = None) -> None:
    """A whole JSON answer."""
    content = json.dumps(body).encode()
    start = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode()), *(headers or [])]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": content})


def error_body(code: str, message: str, details: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The one error shape."""
    return {"error": {"code": code, "message": message, **({"details": dict(details)} if details else {})}}


async def read_body(
    scope: Scope, receive: Receive, limit_bytes: int, grows: Callable[[int], None] = lambda _: None
) -> bytes | bytearray:
    """The whole request body.

    Args:
        grows: told how many bytes came, before more are read; what it raises ends the reading.

    Raises:
        TooLarge: the announced or the received length passes the limit; the rest is not kept.
        ClientGone: the client left before it had sent everything.
    """
    refuse_announced_length(scope, limit_bytes)
    first, more = await next_chunk(receive)
    grows(len(first))
    if not more and len(first) <= limit_bytes:
        return first
    whole = bytearray(first)  # grows in place: parts that are joined at the end would be in memory twice
    while True:
        if len(whole) > limit_bytes:
            raise TooLarge(too_large_message(limit_bytes))
        if not more:
            return whole
        chunk, more = await next_chunk(receive)
        grows(len(chunk))
        whole += chunk


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

    The request body must have been received: what comes next is the disconnect. Nobody looks for it in the first
    moment: most work is over by then, and a second task for each would cost more than the rest of the gateway.

    Raises:
        ClientGone: the client left first.
    """
    watch = _Watch(receive)
    timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, watch.begin)
    try:
        await work
    except asyncio.CancelledError:
        if not watch.has_seen_it or watch.working.uncancel():  # the server ends it as well
            raise
        raise ClientGone from None
    finally:
        timer.cancel()
        watch.end()


class _Watch:
    """Waits for the client to leave, and cancels the task that made it then."""

    def __init__(self, receive: Receive) -> None:
        self.working = cast("asyncio.Task[Any]", asyncio.current_task())
        self.has_seen_it = False
        self._receive = receive
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._look())

    def end(self) -> None:
        task, self._task = self._task, None  # else its end refers to us, and we to it: a cycle per request
        if task is not None:
            task.cancel()

    async def _look(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.has_seen_it = True
        self.working.cancel()


def event(body: Any, *, name: str = "") -> bytes:
    """A server-sent event of its own, even after one that was cut short."""
    return b"\n\n" + (f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(body).encode() + b"\n\n"
