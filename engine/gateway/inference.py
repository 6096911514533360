"""The byte path of inference: admission, choice of a replica, and the answer passed on as it comes.

The request goes through unchanged but for the credentials; nothing of it is kept or logged.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import aiohttp
import structlog
from yarl import URL

from engine.gateway import asgi
from engine.gateway.asgi import Headers, Receive, Scope, Send
from engine.gateway.balance import Balancer
from engine.gateway.metrics import GatewayMetrics
from engine.gateway.routes import Route, RouteTable, Upstream
from engine.gateway.traffic import Traffic, Visit
from engine.identity.keys import KeyHasher, bearer_secret
from engine.model.access import Principal
from engine.model.clock import Clock
from engine.model.errors import StackyardError, Unavailable

_PATH = re.compile(
    r"/api/v1/public(?:/orgs/(?P<org>[^/]+))?/deployments/(?P<id>[^/]+)"
    r"/(?P<call>chat/completions|completions|embeddings|models)"
)
METHODS = {"chat/completions": "POST", "completions": "POST", "embeddings": "POST", "models": "GET"}

CONNECT_SECONDS = 5.0
"""A replica in the same region answers a SYN in milliseconds; more means it is gone."""

MAX_ATTEMPTS = 3

_NOT_PASSED_ON = frozenset(
    (b"host", b"authorization", b"cookie", b"content-length", b"content-type", b"expect", b"forwarded",
     b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-request-id", b"x-csrf-token",
     b"stackyard-org")
)  # fmt: skip
_AGENT_ERROR = "X-Stackyard-Agent-Error"
_ASKS_NO_MODEL = frozenset(("models",))
"""Calls that say nothing about how the model performs."""

_GO_ELSEWHERE = ("draining", "worker_unreachable")
_FORM = b"application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Call:
    """What an inference path asks for."""

    deployment_id: str
    call: str
    org_id: str | None = None

    @property
    def method(self) -> str:
        return METHODS[self.call]


def parse_path(path: str) -> Call | None:
    """The inference call a path names; None when it names something else."""
    match = _PATH.fullmatch(path)
    return Call(match["id"], match["call"], match["org"]) if match else None


class ReplicaFailed(Exception):
    """A replica could not be reached or broke off before it began to answer."""

    def __init__(self, reason: str, message: str, *, may_retry_here: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.may_retry_here = may_retry_here


class _Outcome:
    """What became of a call: the status its client got (499: it left), and whether the replicas failed."""

    status = 499
    failed = False


class BadGateway(StackyardError):
    """The deployment's replicas did not answer properly."""

    code = "bad_gateway"


class Inference:
    """Answers inference calls.

    Args:
        fresh: waits until the table has seen what the store holds now; called before every refusal, so that a client
            that just read `active` from the API is never told otherwise here.
    """

    def __init__(
        self,
        table: RouteTable,
        fresh: Callable[[], Awaitable[None]],
        hasher: KeyHasher,
        clock: Clock,
        metrics: GatewayMetrics,
        traffic: Traffic,
        *,
        max_body_bytes: int,
    ) -> None:
        self._table = table
        self._fresh = fresh
        self._hasher = hasher
        self._clock = clock
        self._metrics = metrics
        self._traffic = traffic
        self._max_body_bytes = max_body_bytes
        self._balancer = Balancer(clock)
        self._pins: dict[str, aiohttp.Fingerprint] = {}
        self._session: aiohttp.ClientSession | None = None
        self._log = structlog.get_logger("gateway.inference")
        metrics.gauge("in_flight", "Requests at replicas now", self._balancer.in_flight)

    async def open(self) -> None:
        """Make the connection pool; inside the event loop that will use it."""
        connector = aiohttp.TCPConnector(
            limit=0, ttl_dns_cache=60, keepalive_timeout=60, socket_factory=_socket_that_notices_dead_peers
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        )

    async def run(self) -> None:
        """Write traffic down until cancelled."""
        await self._traffic.run()

    async def close(self) -> None:
        """Close connections and write down what is not written yet; no request runs any more."""
        if self._session:
            await self._session.close()
        await self._traffic.write()

    async def answer(
        self, call: Call, scope: Scope, receive: Receive, send: Send, request_id: str, caller: Principal | None = None
    ) -> None:
        """Answer one call.

        Args:
            caller: who a browser session stands for; None: whoever holds the key in the request.

        Raises:
            StackyardError: refused or failed before an answer began; nothing was sent yet.
            ClientGone: the client left; the replica's work was cancelled.
        """
        await self.admit(call, scope, caller)
        visit = self._traffic.visit(call.deployment_id, generates=call.call not in _ASKS_NO_MODEL)
        outcome = _Outcome()
        try:
            body = await asgi.read_body(scope, receive, self._max_body_bytes)
            headers = _upstream_headers(scope, request_id)
            await asgi.while_connected(receive, self._forward(call, scope, headers, body, send, visit, outcome))
        except (BadGateway, Unavailable):
            outcome.failed = True
            raise
        finally:
            visit.ends(outcome.status, failed=outcome.failed)

    async def admit(self, call: Call, scope: Scope, caller: Principal | None = None) -> Route:
        """The route this caller may use now; the store's newest state is awaited before saying no."""
        try:
            return self._table.admit(caller or self._by_key(call, scope), call.deployment_id)
        except StackyardError:
            await self._fresh()
            return self._table.admit(caller or self._by_key(call, scope), call.deployment_id)

    def _by_key(self, call: Call, scope: Scope) -> Principal:
        secret = bearer_secret((asgi.header(scope, b"authorization") or b"").decode("latin-1"))
        key_hash = self._hasher.hash(secret) if secret else None
        org_id = call.org_id or (asgi.header(scope, b"stackyard-org") or b"").decode("latin-1") or None
        return self._table.principal(key_hash, self._clock.now(), org_id)

    async def _forward(
        self, call: Call, scope: Scope, headers: Headers, body: bytes, send: Send, visit: Visit, outcome: _Outcome
    ) -> None:
        """Try replicas until one begins to answer, then pass its answer on."""
        tried: set[str] = set()
        failure: ReplicaFailed | None = None
        broke_off = False
        visit.runs()
        for attempt in range(MAX_ATTEMPTS):
            route = self._table.route(call.deployment_id)  # again each time: replicas come and go while we try
            upstream = self._balancer.choose(route.upstreams, tried) if route else None
            if route is None or upstream is None:
                break
            if attempt:
                self._metrics.retries.inc()
            with self._balancer.serving(upstream):
                try:
                    answer = await self._begin(route, upstream, call, scope, headers, body)
                except ReplicaFailed as err:
                    failure = err
                    self._note_failure(route, upstream, err)
                    if not err.may_retry_here:
                        tried.add(upstream.endpoint)
                    elif broke_off:  # twice: the request itself may be what kills replicas
                        break
                    broke_off = broke_off or err.may_retry_here
                    continue
                async with answer:
                    if answer.headers.get(_AGENT_ERROR) in _GO_ELSEWHERE and self._balancer.choose(
                        route.upstreams, tried | {upstream.endpoint}
                    ):  # draining, or its model server is gone: it never saw the request
                        tried.add(upstream.endpoint)
                        continue
                    outcome.status = answer.status
                    await self._pass_on(answer, send, visit, outcome)
                return
        if failure is None:
            raise Unavailable("the deployment's replicas went away; try again in a few seconds", retry_after_seconds=2)
        raise BadGateway(f"no replica of deployment {call.deployment_id} answered: {failure}", reason=failure.reason)

    async def _begin(
        self, route: Route, upstream: Upstream, call: Call, scope: Scope, headers: Headers, body: bytes
    ) -> aiohttp.ClientResponse:
        """Send the request and wait for the answer's head.

        Raises:
            ReplicaFailed: it cannot have begun to answer.
        """
        if self._session is None:
            raise RuntimeError("the gateway was not started: no connection pool")
        query = scope["query_string"].decode("latin-1")
        url = URL(f"{upstream.endpoint}/v1/{call.call}{'?' + query if query else ''}", encoded=True)
        sent = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
        started = self._clock.monotonic()
        try:
            answer = await self._session.request(
                call.method, url, data=body or None, allow_redirects=False, ssl=self._pin(route.fingerprint),
                headers=[*sent, ("Authorization", f"Bearer {route.token}")],
            )  # fmt: skip
        except aiohttp.ServerFingerprintMismatch as err:
            raise ReplicaFailed("wrong_certificate", f"{upstream.replica} shows another certificate") from err
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as err:
            raise ReplicaFailed("no_connection", f"{upstream.replica} cannot be reached ({_cause(err)})") from err
        except aiohttp.ClientConnectionError as err:
            # a kept connection the replica closed at this very moment looks the same: a new one may do
            raise ReplicaFailed(
                "broke_off", f"{upstream.replica} broke off ({_cause(err)})", may_retry_here=True
            ) from err
        except aiohttp.ClientError as err:
            raise ReplicaFailed("bad_answer", f"{upstream.replica} did not answer in HTTP ({_cause(err)})") from err
        self._metrics.first_byte.observe(self._clock.monotonic() - started)
        if answer.status in (401, 403):
            answer.close()
            raise ReplicaFailed("refused_gateway", f"{upstream.replica} refused the gateway's token")
        if answer.headers.get(_AGENT_ERROR) == "worker_broke_off":
            answer.close()
            raise ReplicaFailed("broke_off", f"{upstream.replica}'s model server broke off", may_retry_here=True)
        return answer

    async def _pass_on(self, answer: aiohttp.ClientResponse, send: Send, visit: Visit, outcome: _Outcome) -> None:
        """Pass an answer on, each part as it comes. A replica that breaks off half-way is shown, not hidden."""
        headers = asgi.end_to_end(answer.raw_headers, without=frozenset((b"server", b"date")))
        visit.begins(answer.status, answer.content_type.encode())
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        try:
            async for chunk in answer.content.iter_any():
                visit.passes(chunk)
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        except aiohttp.ClientError as err:
            outcome.failed = True
            self._metrics.replica_failures.labels("broke_off_midway").inc()
            if answer.content_type == "text/event-stream":  # in band, where clients of event streams look for errors
                event = asgi.error_body(
                    "bad_gateway", f"the replica broke off in the middle of its answer: {_cause(err)}"
                )
                await send({"type": "http.response.body", "body": asgi.event(event), "more_body": True})
            raise
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    def _note_failure(self, route: Route, upstream: Upstream, err: ReplicaFailed) -> None:
        self._balancer.failed(upstream)
        self._metrics.replica_failures.labels(err.reason).inc()
        self._log.warning("a replica failed", deployment_id=route.deployment_id, replica=upstream.replica,
                          reason=err.reason, error=str(err))  # fmt: skip

    def _pin(self, fingerprint: str) -> aiohttp.Fingerprint:
        """The same object for the same certificate: connections are reused only among equal pins."""
        pin = self._pins.get(fingerprint)
        if pin is None:
            if len(self._pins) > 10_000:  # deployments long gone
                self._pins.clear()
            pin = self._pins[fingerprint] = aiohttp.Fingerprint(bytes.fromhex(fingerprint))
        return pin


def _upstream_headers(scope: Scope, request_id: str) -> Headers:
    content_type = asgi.header(scope, b"content-type")
    if content_type is None or content_type.split(b";")[0].strip().lower() == _FORM:
        content_type = b"application/json"  # what curl -d sends is JSON here; workers check the header
    own = [(b"x-request-id", request_id.encode())]
    if scope["method"] == "POST":
        own.append((b"content-type", content_type))
    return asgi.end_to_end(scope["headers"], without=_NOT_PASSED_ON) + own


def _cause(err: BaseException) -> str:
    return str(err.__cause__ or err) or type(err).__name__


def _socket_that_notices_dead_peers(address: aiohttp.AddrInfoType) -> socket.socket:
    """A TCP socket with keep-alive probes: a machine that lost power ends its requests after 30 s, not never."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 30_000)):
        if hasattr(socket, option):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return made
