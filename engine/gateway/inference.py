"""The byte path of inference: admission, a place, a replica, and the answer passed on as it comes.

The request goes through unchanged but for the credentials; nothing of it is kept or logged.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from engine.gateway import asgi, json_members, own_models
from engine.gateway.admission import Admission
from engine.gateway.asgi import Receive, Scope, Send
from engine.gateway.balance import Balancer
from engine.gateway.bodies import Bodies, Body
from engine.gateway.calls import Call
from engine.gateway.metrics import GatewayMetrics
from engine.gateway.own_models import OwnModels
from engine.gateway.reply import Reply, body_of
from engine.gateway.routes import Outlook, Route, Upstream
from engine.gateway.traffic import Traffic, Visit
from engine.gateway.upstream import Answer, BrokeOff, Pool, UpstreamError
from engine.gateway.waiting import Lines, WakeTimeout
from engine.model.access import Principal
from engine.model.byom import PREFIX
from engine.model.clock import Clock
from engine.model.errors import RateLimited, StackyardError, Unavailable
from engine.model.worker import MODEL_HEADER

MAX_ATTEMPTS = 3
LOOK_SECONDS = 0.1
"""How soon it is seen that a new machine has loaded own weights; a look is at the routes in memory."""


_MODEL = MODEL_HEADER.lower().encode()
_NOT_PASSED_ON = asgi.HOP_BY_HOP | frozenset(
    (b"host", b"authorization", b"cookie", b"content-length", b"content-type", b"expect", b"forwarded",
     b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-request-id", b"x-csrf-token",
     b"stackyard-org", b"accept-encoding", _MODEL)
)  # fmt: skip
"""`accept-encoding` too: tokens are counted while the answer passes, and nobody compresses what is generated."""

_NOT_ANSWERED = asgi.HOP_BY_HOP | frozenset((b"server", b"date"))
_AGENT_ERROR = b"x-stackyard-agent-error"
_DRAINING = b"draining"
_GO_ELSEWHERE = (_DRAINING, b"worker_unreachable")
_FORM = b"application/x-www-form-urlencoded"
_EVENTS = b"text/event-stream"
_LONG_BODY_BYTES = 8 * 1024
_MOST_ERROR_BYTES = 256 * 1024


class BadGateway(StackyardError):
    """The deployment's replicas did not answer properly."""

    code = "bad_gateway"


class RefusedGateway(UpstreamError):
    """A replica does not know the gateway's token."""

    reason = "refused_gateway"


@dataclass(slots=True)
class Asked:
    """One request as it is sent to replicas.

    Attributes:
        line: method and path with the query; headers: the rest of the head, but for host and token.
        body: forgotten when an answer began: a stream may go on for long; `share` is what it takes of the memory.
        own_model: the own weights it asks for by name; None: whatever the replicas serve.
    """

    call: Call
    line: bytes
    headers: bytes
    body: bytes | bytearray = field(repr=False)
    share: Body
    own_model: str | None = None

    def forget_body(self) -> None:
        self.body = b""
        self.share.free()

    def head(self, upstream: Upstream, token: str) -> bytes:
        host = upstream.endpoint.partition("://")[2]
        return b"%b\r\nhost: %b\r\nauthorization: Bearer %b\r\n%b\r\n" % (
            self.line, host.encode(), token.encode(), self.headers
        )  # fmt: skip


class Inference:
    """Answers inference calls."""

    def __init__(
        self, admission: Admission, lines: Lines, models: OwnModels, traffic: Traffic, metrics: GatewayMetrics,
        clock: Clock, *, max_body_bytes: int,
    ) -> None:  # fmt: skip
        self._admission = admission
        self._table = admission.table
        self._lines = lines
        self._models = models
        self._traffic = traffic
        self._metrics = metrics
        self._clock = clock
        self._max_body_bytes = max_body_bytes
        self._balancer = Balancer(clock)
        self._bodies = Bodies()
        self._pool = Pool()
        self._log = structlog.get_logger("gateway.inference")
        metrics.gauge("in_flight", "Requests at replicas now", lambda: traffic.totals()[0])
        metrics.gauge(
            "waiting", "Requests held until a replica wakes or a place comes free", lambda: traffic.totals()[1]
        )

    async def open(self) -> None:
        """Begin; inside the event loop that requests will come in."""
        self._pool.open()

    async def run(self) -> None:
        """Write traffic down until cancelled."""
        await self._traffic.run()

    async def close(self) -> None:
        """Close connections and write down what is not written yet; no request runs any more."""
        self._pool.close()
        await self._lines.close()
        await self._traffic.write()

    async def answer(
        self, call: Call, scope: Scope, receive: Receive, send: Send, request_id: str, caller: Principal | None = None
    ) -> None:
        """Answer one call.

        Args:
            caller: who a browser session stands for; None: whoever holds the key in the request.

        Raises:
            StackyardError: refused or failed before an answer began; nothing was sent yet.
            UpstreamError: the replica broke off in the middle of its answer, which ends short.
            ClientGone: the client left; the replica's work was cancelled.
        """
        route = await self._admission.admit(call, scope, caller)
        if route.outlook is Outlook.SLEEPS:
            self._lines.wake(route)
        visit, reply, refused = self._traffic.visit(call.deployment_id, generates=call.generates), Reply(send), False
        share = Body(self._bodies, route.org_id)
        try:
            if route.outlook is not Outlook.SERVES:
                self._lines.refuse_if_full(route, int(asgi.header(scope, b"content-length") or 0))
            body = await asgi.read_body(scope, receive, self._max_body_bytes, share.grow)
            asked = await _asked(call, scope, request_id, body, share)
            del body
            await asgi.while_connected(receive, self._serve(asked, reply, visit))
        except StackyardError as err:
            refused = isinstance(err, (RateLimited, WakeTimeout))
            reply.failed = isinstance(err, (BadGateway, Unavailable, WakeTimeout))
            if not reply.waits:
                raise
            await reply.error(body_of(err))
            await reply.end()
        finally:
            share.free()
            visit.ends(reply.status, failed=reply.failed, refused=refused)

    async def _serve(self, asked: Asked, reply: Reply, visit: Visit) -> None:
        """Get a place, waiting for it if need be, and forward; again if the replicas left just then."""
        deployment_id = asked.call.deployment_id
        for _ in range(MAX_ATTEMPTS):
            route = self._table.route(deployment_id)
            if route is None or not self._lines.enter(route):
                await self._wait(asked, reply, visit)
            try:
                visit.runs()
                if await self._forward(asked, reply, visit):
                    return
            finally:
                self._lines.leave(deployment_id)
        raise Unavailable("the deployment's replicas went away; try again in a few seconds", retry_after_seconds=2)

    async def _wait(self, asked: Asked, reply: Reply, visit: Visit) -> None:
        route = self._table.route(asked.call.deployment_id)
        if route is None:
            raise Unavailable("the deployment went away at this moment; ask the API what became of it")
        visit.waits()
        await self._lines.wait(route, len(asked.body), self._say(asked, reply))
        if route.outlook in (Outlook.SLEEPS, Outlook.WAKES):
            visit.woke()

    async def _forward(self, asked: Asked, reply: Reply, visit: Visit) -> bool:
        """Try replicas until one begins to answer, then pass its answer on; False: they left, and none has seen it."""
        tried: set[str] = set()
        failure: UpstreamError | None = None
        broke_off = False
        for attempt in range(MAX_ATTEMPTS):
            route = self._table.route(asked.call.deployment_id)  # again each time: replicas come and go while we try
            upstreams = await self._candidates(route, asked, reply) if route else ()
            upstream = self._balancer.choose(upstreams, tried)
            if route is None or upstream is None:
                break
            if attempt:
                self._metrics.retries.inc()
            with self._balancer.serving(upstream):
                try:
                    answer = await self._begin(route, upstream, asked)
                except UpstreamError as err:
                    failure = err
                    self._note_failure(route, upstream, err)
                    if not isinstance(err, BrokeOff):  # a kept connection the replica closed looks like that: a new
                        tried.add(upstream.endpoint)  # one may do
                    elif broke_off:  # twice: the request itself may be what kills replicas
                        break
                    broke_off = broke_off or isinstance(err, BrokeOff)
                    continue
                try:
                    said = answer.header(_AGENT_ERROR)
                    if said in _GO_ELSEWHERE and self._balancer.choose(upstreams, tried | {upstream.endpoint}):
                        tried.add(upstream.endpoint)  # its model server has not seen the request
                        continue
                    if said == _DRAINING and await self._has_left(route, upstream):
                        return False
                    asked.forget_body()
                    await self._pass_on(answer, reply, visit)
                finally:
                    answer.close()
                return True
        if failure is None:
            return False
        raise BadGateway(
            f"no replica of deployment {asked.call.deployment_id} answered: {failure}", reason=failure.reason
        )

    async def _has_left(self, route: Route, upstream: Upstream) -> bool:
        """Whether the newest state has a replica no more: it was told to drain because the deployment falls asleep."""
        await self._admission.fresh()
        newest = self._table.route(route.deployment_id)
        return newest is None or upstream.endpoint not in (one.endpoint for one in newest.upstreams)

    async def _candidates(self, route: Route, asked: Asked, reply: Reply) -> tuple[Upstream, ...]:
        if asked.own_model is None:
            return route.upstreams
        serving = route.serving(asked.own_model)
        if serving or not route.upstreams:
            return serving
        await self._admission.fresh()
        serving = (self._table.route(route.deployment_id) or route).serving(asked.own_model)
        return serving or await self._once_loaded(route, asked.own_model, asked, reply)

    async def _once_loaded(self, route: Route, name: str, asked: Asked, reply: Reply) -> tuple[Upstream, ...]:
        """Replicas that serve own weights which were ready before: machines just woken or replaced load them anew."""
        refusal = await self._models.why_not(route, name)
        if not own_models.comes_back(refusal):
            raise refusal
        say = self._say(asked, reply)
        patience, began = self._lines.patience, self._clock.monotonic()
        spoke = began
        while (now := self._clock.monotonic()) < began + patience.wake_seconds:
            newest = self._table.route(route.deployment_id)
            if newest is None or not newest.upstreams:
                return ()  # they left: back into the line, which knows why
            if serving := newest.serving(name):
                return serving
            if now >= spoke + patience.word_seconds:
                spoke = now
                await say()
            await self._clock.sleep(LOOK_SECONDS)
        raise refusal

    def _say(self, asked: Asked, reply: Reply) -> Callable[[], Awaitable[None]]:
        """How a client is told that it waits: only one that wants a stream hears of it."""

        async def say() -> None:
            if await _wants_stream(asked.body):
                await reply.say()

        return say

    async def _begin(self, route: Route, upstream: Upstream, asked: Asked) -> Answer:
        """Send the request and wait for the answer's head.

        Raises:
            UpstreamError: it cannot have begun to answer.
        """
        started = self._clock.monotonic()
        try:
            answer = await self._pool.request(
                upstream.endpoint, route.fingerprint, asked.head(upstream, route.token), asked.body
            )
        except UpstreamError as err:
            raise type(err)(f"{upstream.replica} {err}") from err
        self._metrics.first_byte.observe(self._clock.monotonic() - started)
        if answer.status in (401, 403):
            answer.close()
            raise RefusedGateway(f"{upstream.replica} refused the gateway's token")
        if answer.header(_AGENT_ERROR) == b"worker_broke_off":
            answer.close()
            raise BrokeOff(f"{upstream.replica}'s model server broke off")
        return answer

    async def _pass_on(self, answer: Answer, reply: Reply, visit: Visit) -> None:
        """Pass an answer on, each part as it comes. A replica that breaks off half-way is shown, not hidden."""
        content_type = answer.header(b"content-type")
        visit.begins(answer.status, content_type)
        is_stream = content_type.startswith(_EVENTS)
        if reply.waits and not is_stream:
            await _as_event(answer, reply, visit)
            return
        if not reply.waits:
            await reply.begin(answer.status, asgi.end_to_end(answer.headers, dropped=_NOT_ANSWERED))
        try:
            while part := await answer.part():
                visit.passes(part)
                if answer.is_read:  # most answers are one part: no need to send an empty one after it
                    await reply.part(part, is_last=True)
                    return
                await reply.part(part)
        except UpstreamError as err:
            reply.failed = True
            self._metrics.replica_failures.labels("broke_off_midway").inc()
            if is_stream:  # in band, where clients of event streams look for errors
                message = f"the replica broke off in the middle of its answer: {err}"
                await reply.part(asgi.event(asgi.error_body("bad_gateway", message)))
            raise
        await reply.end()

    def _note_failure(self, route: Route, upstream: Upstream, err: UpstreamError) -> None:
        self._balancer.failed(upstream)
        self._metrics.replica_failures.labels(err.reason).inc()
        self._log.warning("a replica failed", deployment_id=route.deployment_id, replica=upstream.replica,
                          reason=err.reason, error=str(err))  # fmt: skip


async def _asked(call: Call, scope: Scope, request_id: str, body: bytes | bytearray, share: Body) -> Asked:
    query, method = scope["query_string"], scope["method"]
    path = call.worker_path.encode() + (b"?" + query if query else b"")
    lines = [b"%b: %b\r\n" % pair for pair in asgi.end_to_end(scope["headers"], dropped=_NOT_PASSED_ON)]
    lines.append(b"x-request-id: %b\r\n" % request_id.encode())
    own_model = None
    if method == "POST":
        content_type = asgi.header(scope, b"content-type")
        if content_type is None or content_type.split(b";")[0].strip().lower() == _FORM:
            content_type = b"application/json"  # what curl -d sends is JSON here; workers check the header
        lines.append(b"content-type: %b\r\ncontent-length: %d\r\n" % (content_type, len(body)))
        own_model = await own_models.asked_for(call.deployment_id, body)
        if own_model is not None:
            lines.append(b"%b: %b\r\n" % (_MODEL, f"{PREFIX}{own_model}".encode()))
    return Asked(call, b"%b %b HTTP/1.1" % (method.encode(), path), b"".join(lines), body, share, own_model)


async def _wants_stream(body: bytes | bytearray) -> bool:
    if b"stream" not in body:
        return False
    if len(body) < _LONG_BODY_BYTES:
        return json_members.members(body, ("stream",)).get("stream") is True
    return (await asyncio.to_thread(json_members.members, body, ("stream",))).get("stream") is True


async def _as_event(answer: Answer, reply: Reply, visit: Visit) -> None:
    """A whole answer, mostly a refusal, to a client that was given a stream while it waited."""
    whole = bytearray()
    while (part := await answer.part()) and len(whole) < _MOST_ERROR_BYTES:
        visit.passes(part)
        whole += part
    kind = b"event: error\n" if answer.status >= 400 else b""
    lines = b"".join(b"data: %b\n" % line for line in bytes(whole).splitlines() or [b""])
    await reply.part(kind + lines + b"\n")
    await reply.end()
