"""The client's side of one inference call: its answer begins once, as the replica's or as a stream that waits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.gateway import asgi
from engine.gateway.asgi import Headers, Send
from engine.gateway.own_models import NoSuchModel
from engine.model.errors import StackyardError

_STREAM: Headers = [
    (b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]  # fmt: skip
WORD = b": waking\n\n"
"""A comment: every reader of event streams passes over it, every proxy in between sees that somebody lives."""


class Reply:
    """What was sent of an answer.

    Attributes:
        status: what the client got; 499 while it got nothing.
        waits: it began as an event stream before a replica answered.
        failed: the replicas did not answer properly, or broke off.
    """

    __slots__ = ("_send", "failed", "status", "waits")

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 499
        self.waits = False
        self.failed = False

    async def say(self) -> None:
        """Tell a client that wants a stream that its request waits."""
        if not self.waits:
            self.waits = True
            self.status = 200
            await self._send({"type": "http.response.start", "status": 200, "headers": _STREAM.copy()})
        await self.part(WORD)

    async def begin(self, status: int, headers: Headers) -> None:
        self.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def part(self, chunk: bytes, *, is_last: bool = False) -> None:
        await self._send({"type": "http.response.body", "body": chunk, "more_body": not is_last})

    async def end(self) -> None:
        await self.part(b"", is_last=True)

    async def error(self, body: Mapping[str, Any]) -> None:
        """An error in a stream that has begun."""
        await self.part(asgi.event(body, name="error"))


def body_of(err: StackyardError) -> dict[str, Any]:
    """The body that tells a client of an error."""
    return err.body() if isinstance(err, NoSuchModel) else asgi.error_body(err.code, err.message, err.details)
