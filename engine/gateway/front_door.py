"""The ASGI application on the one public port: inference itself, everything else handed to the API."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import re
from collections.abc import Awaitable, Callable

import aiohttp
import structlog

from engine.gateway import asgi
from engine.gateway.api_proxy import ApiProxy
from engine.gateway.asgi import ClientGone, Headers, Message, Receive, Scope, Send
from engine.gateway.calls import Call, parse_path
from engine.gateway.feed import RouteFeed
from engine.gateway.inference import Inference
from engine.gateway.job_front import JobFront
from engine.gateway.metrics import GatewayMetrics
from engine.gateway.model_upload import ModelUpload
from engine.gateway.reply import body_of
from engine.gateway.routes import NoRoute
from engine.gateway.storage_door import StorageDoor
from engine.gateway.upstream import UpstreamError
from engine.jobs.web import Found
from engine.model.errors import StackyardError, Unavailable

NewId = Callable[[str], str]

FRESH_SECONDS = 1.0
"""How long an accepted change may wait to be known to the routes; usually it is milliseconds."""

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


class FrontDoor:
    """Plain ASGI: no framework between the socket and a token."""

    def __init__(
        self, inference: Inference, api: ApiProxy, feed: RouteFeed, metrics: GatewayMetrics, new_id: NewId,
        storage: StorageDoor | None = None, jobs: JobFront | None = None, models: ModelUpload | None = None,
    ) -> None:  # fmt: skip
        self._inference = inference
        self._api = api
        self._feed = feed
        self._metrics = metrics
        self._request_prefix = new_id("req")  # one for all: randomness for each request would be a system call each
        self._request_numbers = itertools.count(1)
        self._storage = storage
        self._jobs = jobs
        self._models = models
        self._log = structlog.get_logger("gateway")
        metrics.gauge("routes_age_seconds", "Since the routes last agreed with the store", lambda: feed.age_seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        await self._api.open()
        await self._inference.open()
        await asyncio.to_thread(self._feed.load)
        loops = [
            asyncio.create_task(loop) for loop in (self._feed.run(), self._feed.note_uses(), self._inference.run())
        ]
        if self._storage is not None:
            loops.append(asyncio.create_task(self._storage.run()))
        if self._jobs is not None:
            await self._jobs.service.open()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for loop in loops:
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        await self._feed.flush_uses()
        if self._jobs is not None:
            await self._jobs.service.close()
        if self._storage is not None:
            await self._storage.close()
        if self._models is not None:
            self._models.close()
        await self._inference.close()
        await self._api.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = self._request_id(scope)
        call = parse_path(scope["path"])
        reply = _Reply(send, [(b"x-request-id", request_id.encode())])
        try:
            await self._answer(call, scope, receive, reply, request_id)
        except StackyardError as err:
            await reply.refuse(err)
        except ClientGone:
            self._metrics.clients_gone.inc()
        except asyncio.CancelledError:  # this process ends; one that waits for a deployment may do so at the next
            await reply.refuse(Unavailable("the gateway restarts; send the request again", retry_after_seconds=2))
        except (aiohttp.ClientError, UpstreamError) as err:  # after the answer began: its short end tells the client
            self._log.warning("an answer broke off", request_id=request_id, error=str(err) or type(err).__name__)
        finally:
            kind = "inference" if call else "api"
            self._metrics.answered(kind, reply.status or 499)

    async def _answer(self, call: Call | None, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        if call is None:
            await self._jobs_or_other(scope, receive, send, request_id)
        elif scope["method"] not in call.methods:
            allowed = ", ".join(call.methods)
            body = asgi.error_body("method_not_allowed", f"use {allowed} here, not {scope['method']}")
            await asgi.send_json(send, 405, body, [(b"allow", allowed.encode())])
        else:
            caller = await self._api.session_caller(scope, call.name) if asgi.has_session(scope) else None
            try:
                if caller is None and asgi.has_session(scope):
                    raise NoRoute("the session may not, or the API does not answer: it says which")
                await self._inference.answer(call, scope, receive, send, request_id, caller)
            except NoRoute:
                # deployments that are gone have no route; the API knows them and says 404 or 409
                await self._api.answer(scope, receive, send, request_id)

    async def _jobs_or_other(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        found = self._jobs.find(scope) if self._jobs is not None else frozenset()
        if self._jobs is not None and isinstance(found, Found):
            await self._jobs.answer(found, scope, receive, send, request_id)
        elif isinstance(found, frozenset) and found:
            allowed = ", ".join(sorted(found))
            body = asgi.error_body("method_not_allowed", f"use {allowed} here, not {scope['method']}")
            await asgi.send_json(send, 405, body, [(b"allow", allowed.encode())])
        else:
            await self._own_or_api(scope, receive, send, request_id)

    async def _own_or_api(self, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        if scope["path"] == "/healthz":
            await asgi.send_json(send, 200, {"status": "ok"})
        elif scope["path"] == "/metrics":
            text = await self._api.metrics() + self._metrics.exposition()
            start: Headers = [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")]
            await send({"type": "http.response.start", "status": 200, "headers": start})
            await send({"type": "http.response.body", "body": text})
        elif self._storage is not None and self._storage.serves(scope["path"]):
            await self._storage.answer(scope, receive, send)
        elif self._models is not None and self._models.serves(scope):
            await self._models.answer(scope, receive, self._once_known(send))
        elif scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._api.answer(scope, receive, send, request_id)
        else:
            await self._api.answer(scope, receive, self._once_known(send), request_id)

    def _once_known(self, send: Send) -> Send:
        """`send` that holds a success back until the routes know the change: its reader may rely on it at once."""

        async def held(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 300:
                with contextlib.suppress(TimeoutError):  # a store that does not answer must not hold it for long
                    await asyncio.wait_for(self._feed.fresh(), FRESH_SECONDS)
            await send(message)

        return held

    def _request_id(self, scope: Scope) -> str:
        """The client's `x-request-id` if it is a plain one, else a new one: this process's own id and a number."""
        given = asgi.header(scope, b"x-request-id")
        if given is not None and _REQUEST_ID.fullmatch(given):
            return given.decode()
        return f"{self._request_prefix}{next(self._request_numbers):x}"


class _Reply:
    """`send` with our headers added; remembers whether and how the answer began."""

    def __init__(self, send: Callable[[Message], Awaitable[None]], headers: Headers) -> None:
        self._send = send
        self._headers = headers
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            ours = {name for name, _ in self._headers}
            kept = [(name, value) for name, value in message["headers"] if name not in ours]
            message["headers"] = kept + self._headers
        await self._send(message)

    async def refuse(self, err: StackyardError) -> None:
        """Answer with an error; a no-op once an answer has begun."""
        if self.status is not None:
            return
        headers: Headers = []
        if wait := err.details.get("retry_after_seconds"):
            headers.append((b"retry-after", str(wait).encode()))
        status = asgi.STATUS_OF_CODE.get(err.code, 500)
        if status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        await asgi.send_json(self, status, body_of(err), headers)
