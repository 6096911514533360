"""Carries requests about jobs between ASGI and `engine.jobs`: who asks, the body whole, the answer. Knows no job."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from urllib.parse import parse_qsl

import structlog
from sqlalchemy.exc import DataError, SQLAlchemyError

from engine.gateway import asgi
from engine.gateway.asgi import Receive, Scope, Send
from engine.gateway.routes import RouteTable
from engine.identity.keys import KeyHasher, bearer_secret
from engine.jobs.service import JobService
from engine.jobs.web import Answer, Found, Request
from engine.model.access import Principal
from engine.model.clock import Clock
from engine.model.errors import InvalidSpec, StackyardError, TooLarge, Unavailable

PREFIXES = ("/v1/gpu/", "/v2/")
_log = structlog.get_logger("gateway.jobs")


@dataclass(frozen=True)
class JobFront:
    """The door to jobs.

    Attributes:
        fresh: waits until the table has seen what the store holds now; called before a key is refused.
        session_caller: who a browser session's cookie stands for; None: nobody.
    """

    service: JobService
    table: RouteTable
    hasher: KeyHasher
    clock: Clock
    fresh: Callable[[], Awaitable[None]]
    session_caller: Callable[[Scope], Awaitable[Principal | None]]

    def find(self, scope: Scope) -> Found | frozenset[str]:
        """The route a request means; else the methods its path knows (none: the path is not about jobs)."""
        if not scope["path"].startswith(PREFIXES):
            return frozenset()
        return self.service.routes.find(scope["method"], scope["path"])

    async def answer(self, found: Found, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        """Answer one request.

        Raises:
            StackyardError: refused, nothing was sent yet.
            ClientGone: the client left; what it asked for goes on where it is a job.
        """
        route = found.route
        caller = await self._caller(scope) if route.needs_key else None
        request = Request(
            scope["method"], found.parts, dict(parse_qsl(scope["query_string"].decode("latin-1"))),
            {k.decode("latin-1"): v.decode("latin-1") for k, v in reversed(scope["headers"])}, b"", caller, request_id,
        )  # fmt: skip
        if route.admit is not None:
            route.admit(request)
        try:
            request = replace(request, body=bytes(await asgi.read_body(scope, receive, route.limit_bytes)))
        except TooLarge as err:
            raise TooLarge(route.too_large or err.message) from err
        try:
            if route.is_quick:
                await _send(await route.call(request), send)
            else:
                await asgi.while_connected(receive, self._long(route.call, request, send))
        except DataError as err:
            raise InvalidSpec("a value holds a character that cannot be stored, such as NUL") from err
        except SQLAlchemyError as err:
            _log.error("the database does not answer", request_id=request_id, error=str(err.__cause__ or err))
            message = "the database does not answer; try again in a few seconds"
            raise Unavailable(message, retry_after_seconds=2) from err

    async def _long(self, call: Callable[[Request], Awaitable[Answer]], request: Request, send: Send) -> None:
        await _send(await call(request), send)

    async def _caller(self, scope: Scope) -> Principal:
        try:
            return self._by_key(scope)
        except StackyardError:
            if asgi.has_session(scope) and (caller := await self.session_caller(scope)):
                return caller
            await self.fresh()
            return self._by_key(scope)

    def _by_key(self, scope: Scope) -> Principal:
        secret = bearer_secret((asgi.header(scope, b"authorization") or b"").decode("latin-1"))
        org_id = (asgi.header(scope, b"stackyard-org") or b"").decode("latin-1") or None
        return self.table.principal(self.hasher.hash(secret) if secret else None, self.clock.now(), org_id)


async def _send(answer: Answer, send: Send) -> None:
    headers = [(b"content-type", answer.content_type.encode())] if answer.body or answer.chunks else []
    headers += [(name.encode("latin-1"), value.encode("latin-1")) for name, value in answer.headers]
    if answer.chunks is None:
        headers.append((b"content-length", str(len(answer.body)).encode()))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})
        return
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    async for chunk in answer.chunks:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})
