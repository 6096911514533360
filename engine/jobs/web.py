"""Requests and answers of the job surface as values, and its table of routes. Knows no ASGI: the gateway does."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.model.access import Principal

SMALL_BODY_BYTES = 64 * 1024
"""For requests that carry a few words: cancels, pings."""


@dataclass(frozen=True)
class Request:
    """One HTTP request, read whole.

    Attributes:
        path: named parts of the route's pattern (`slug`, `id`, …).
        query: the last value of each parameter.
        headers: by lower-case name, the first value of each.
        caller: whose key came with it; None on routes of workers, who check their own tokens.
        request_id: names it in logs.
    """

    method: str
    path: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    caller: Principal | None = None
    request_id: str = ""

    def bearer(self) -> str:
        """The secret of `Authorization: Bearer …`, or the bare value some clients send; "" when there is none."""
        given = self.headers.get("authorization", "").strip()
        return given[7:].strip() if given[:7].lower() == "bearer " else given


@dataclass(frozen=True)
class Answer:
    """What goes back: a whole body, or chunks as they come."""

    status: int = 200
    body: bytes = b""
    headers: Sequence[tuple[str, str]] = ()
    chunks: AsyncIterator[bytes] | None = None
    content_type: str = "application/json"


def json_answer(value: Any, status: int = 200, headers: Sequence[tuple[str, str]] = ()) -> Answer:
    """A JSON answer."""
    return Answer(status, json.dumps(value, separators=(",", ":")).encode(), headers)


Call = Callable[[Request], Awaitable[Answer]]
"""Answers a request, or raises a `StackyardError`; cancelled when the client leaves."""


@dataclass(frozen=True)
class Route:
    """One path of the surface.

    Attributes:
        pattern: matched against the whole path; its named groups become `Request.path`.
        needs_key: a client's route, whose caller the gateway finds out; False: a worker's.
        is_quick: answered in milliseconds: not worth watching whether the client leaves, and never cancelled.
        admit: refuses a request by its path and headers, before anything of its body is read.
        limit_bytes: larger bodies are a 413 with `too_large`, which says what to do instead.
    """

    method: str
    pattern: re.Pattern[str]
    call: Call
    needs_key: bool = True
    limit_bytes: int = SMALL_BODY_BYTES
    too_large: str = ""
    is_quick: bool = False
    admit: Callable[[Request], object] | None = None


@dataclass(frozen=True)
class Found:
    """A route and the parts of the path it named."""

    route: Route
    parts: Mapping[str, str] = field(default_factory=dict)


class Routes:
    """Which route a request means."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = tuple(routes)

    def find(self, method: str, path: str) -> Found | frozenset[str]:
        """The route; else the methods the path does know (none: not a path of this surface)."""
        methods: set[str] = set()
        for route in self._routes:
            if match := route.pattern.fullmatch(path):
                if route.method == method:
                    return Found(route, match.groupdict())
                methods.add(route.method)
        return frozenset(methods)

    def __iter__(self) -> Any:
        return iter(self._routes)
