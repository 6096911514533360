"""Around every API request: its content type made plain, its answer counted. Plain ASGI, reads no body."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from api.metrics import ApiMetrics
from engine.model.clock import Clock

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_FORM = b"application/x-www-form-urlencoded"


class JsonByDefault:
    """Reads what `curl -d` sends as JSON: the documents' samples leave the content type to curl."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            given = next((v for k, v in scope["headers"] if k == b"content-type"), _FORM)
            if given.split(b";")[0].strip().lower() == _FORM:
                kept = [(k, v) for k, v in scope["headers"] if k != b"content-type"]
                scope["headers"] = [*kept, (b"content-type", b"application/json")]
        await self._app(scope, receive, send)


class Counted:
    """Counts answers by route template and status."""

    def __init__(self, app: App, metrics: ApiMetrics, clock: Clock) -> None:
        self._app = app
        self._metrics = metrics
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        started = self._clock.monotonic()
        status = 500

        async def counting(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, counting)
        finally:
            route = getattr(scope.get("route"), "path", "unknown")
            self._metrics.requests.labels(scope["method"], route, str(status)).inc()
            self._metrics.seconds.observe(self._clock.monotonic() - started)
