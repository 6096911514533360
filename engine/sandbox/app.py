"""The ASGI application: reads a request, applies limits and faults, asks the route, writes the answer.

Not the routes (their own files) and not the server (`server.py`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from engine.model.ids import random_uuid
from engine.sandbox import (
    actions,
    certificates,
    domains,
    droplets,
    firewalls,
    keys,
    kubernetes,
    load_balancers,
    places,
    projects,
    reserved_ips,
    snapshots,
    tags,
    volumes,
)
from engine.sandbox.assets import Asset
from engine.sandbox.cloud import Cloud
from engine.sandbox.errors import (
    ApiError,
    bad_request,
    not_found,
    server_error,
    too_many_requests,
    unauthorized,
    unprocessable,
)
from engine.sandbox.exchange import Exchange, Receive, Scope, Send
from engine.sandbox.faults import Fault, FaultKind, Faults, first
from engine.sandbox.journal import RequestEntry
from engine.sandbox.keys import find_key
from engine.sandbox.limits import Limiter, RateLimits
from engine.sandbox.records import Account, Firewall, SshKey, Vpc
from engine.sandbox.routing import TARGETS, Reply, Request, Routes
from engine.sandbox.spaces import keys as spaces_keys
from engine.sandbox.spaces.service import Spaces

PARTS = (
    places, keys, tags, droplets, actions, firewalls, volumes, snapshots, reserved_ips, projects, load_balancers,
    domains, certificates, spaces_keys, kubernetes,
)  # fmt: skip
ROUTES = Routes([route for part in PARTS for route in part.ROUTES])
DROPS = (FaultKind.TIMEOUT_BEFORE_EFFECT, FaultKind.TIMEOUT_AFTER_EFFECT)


class Admin(Protocol):
    """The `/_sandbox` side (`admin.py`)."""

    def answer(self, method: str, path: str, query: Mapping[str, str], body: Mapping[str, Any]) -> Reply: ...


@dataclass
class SandboxApp:
    """One cloud behind HTTP.

    Attributes:
        accounts: token → account name; empty = any token is an account of its own.
        spaces: the S3 API; None = there is none.
        commit: called when a request has changed state, before its answer leaves.
    """

    cloud: Cloud
    faults: Faults = field(default_factory=Faults)
    limiter: Limiter = field(default_factory=lambda: Limiter(RateLimits(0, 0, 0)))
    accounts: Mapping[str, str] = field(default_factory=dict)
    admin: Admin | None = None
    spaces: Spaces | None = None
    commit: Callable[[], None] = lambda: None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return
        exchange = Exchange(scope, receive, send)
        if self.spaces is not None and (address := self.spaces.address(exchange)) is not None:
            await self.spaces.answer(exchange, address)
            self.commit()
            return
        try:
            body = await exchange.read()
            if scope["path"].startswith("/_sandbox"):
                await exchange.write(self._admin(exchange, body))
            else:
                await self._public(exchange, body)
        except ApiError as err:
            await exchange.write(_refusal(err, {}))

    def _admin(self, exchange: Exchange, body: bytes) -> Reply:
        if self.admin is None:
            raise not_found()
        self.cloud.advance()
        reply = self.admin.answer(exchange.method, exchange.path, exchange.query, _parse(body))
        if self.spaces is not None:
            self.spaces.sweep()  # a bucket that vanished takes what was in it along
        self.commit()
        return reply

    async def _public(self, exchange: Exchange, raw: bytes) -> None:
        mark, name = self._authenticate(exchange)
        verdict = self.limiter.check(mark, exchange.method, exchange.path, self.cloud.now())
        hits: list[Fault] = []
        try:
            if not verdict.passes:
                raise too_many_requests(verdict.retry_after_seconds)
            body = _parse(raw)
            self.cloud.advance()
            account = self.cloud.account(name)
            hits = self.faults.hit(exchange.method, exchange.path, _names(exchange, body, account))
            await self._suffer_before(exchange, hits)
            self.cloud.advance()
            reply = self._route(exchange, account, body, hits)
            if (after := first(hits, FaultKind.TIMEOUT_AFTER_EFFECT)) is not None:
                await self._drop(exchange, name, after)
                return
            if (broken := first(hits, FaultKind.ERROR_AFTER_EFFECT)) is not None:
                raise server_error(broken.status, broken.message)
        except ApiError as err:
            reply = _refusal(err, {})
        except _Dropped as dropped:
            await self._drop(exchange, name, dropped.fault)
            return
        self._log(exchange, name, reply.status, hits)
        await exchange.write(Reply(reply.status, reply.body, {**verdict.headers, **reply.headers}))

    def _authenticate(self, exchange: Exchange) -> tuple[str, str]:
        """A mark of the token (never the token) and the name of its account."""
        scheme, _, token = exchange.header(b"authorization").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise unauthorized()
        mark = hashlib.sha256(token.encode()).hexdigest()[:16]
        if self.accounts and token not in self.accounts:
            raise unauthorized()
        return mark, self.accounts.get(token, f"account-{mark}")

    def _route(self, exchange: Exchange, account: Account, body: Mapping[str, Any], hits: list[Fault]) -> Reply:
        found = ROUTES.find(exchange.method, exchange.path)
        if found is None:
            if ROUTES.knows(exchange.path):
                raise ApiError(405, "method_not_allowed", f"{exchange.method} is not allowed here")
            raise ApiError(404, "not_found", f"This cloud has no route {exchange.method} {exchange.path}.")
        handler, values = found
        request = Request(
            self.cloud, account, exchange.method, exchange.path, exchange.origin, values, exchange.query, body, hits
        )
        if first(hits, FaultKind.VANISH) is not None:
            self._vanish(request)
        try:
            return handler(request)
        finally:
            self.commit()

    def _vanish(self, request: Request) -> None:
        """Remove what the path points at; a create points at nothing, and sees to it itself."""
        if "droplet" in request.values:
            self.cloud.vanish(request.account, droplets.droplet_of(request))
        elif (asset := _asset_at(request.values, request.account)) is not None:
            self.cloud.assets.remove(request.account, asset, "vanished")
        else:
            self._vanish_record(request)

    def _vanish_record(self, request: Request) -> None:
        account, values = request.account, request.values
        record = (
            account.firewalls.pop(values.get("firewall", ""), None)
            or account.vpcs.pop(values.get("vpc", ""), None)
            or account.keys.pop(getattr(find_key(account, values.get("key", "")), "id", 0), None)
        )
        if record is not None:
            self.cloud.forget(record)
            kind = {Firewall: "firewall", Vpc: "vpc", SshKey: "key"}[type(record)]
            self.cloud.journal.add(self.cloud.now(), account.name, f"{kind}.vanished", record.id, name=record.name)

    async def _suffer_before(self, exchange: Exchange, hits: list[Fault]) -> None:
        for fault in hits:
            match fault.kind:
                case FaultKind.DELAY:
                    await self.cloud.clock.sleep(fault.seconds)
                case FaultKind.RATE_LIMITED:
                    raise too_many_requests(fault.retry_after_seconds)
                case FaultKind.ERROR:
                    raise server_error(fault.status, fault.message)
                case FaultKind.TIMEOUT_BEFORE_EFFECT:
                    raise _Dropped(fault)
                case _:
                    pass

    async def _drop(self, exchange: Exchange, account: str, fault: Fault) -> None:
        self._log(exchange, account, 0, [fault])
        await exchange.hold(self.cloud.clock.sleep(fault.seconds))
        await exchange.kill()

    def _log(self, exchange: Exchange, account: str, status: int, hits: list[Fault]) -> None:
        fault = ",".join(f.kind.value for f in hits)
        self.cloud.journal.requests.append(
            RequestEntry(self.cloud.now(), account, exchange.method, exchange.path, status, fault)
        )


class _Dropped(Exception):
    def __init__(self, fault: Fault) -> None:
        super().__init__(fault.kind)
        self.fault = fault


def _parse(raw: bytes) -> Mapping[str, Any]:
    if not raw:
        return {}
    try:
        body = json.loads(raw)
    except ValueError:
        raise bad_request("The request body is not JSON.") from None
    if not isinstance(body, dict):
        raise unprocessable("The request body must be a JSON object.")
    return body


def _names(exchange: Exchange, body: Mapping[str, Any], account: Account) -> list[str]:
    """The names a fault may pick its victim by: those in the body, and the name of what the path points at."""
    names = [body["name"]] if isinstance(body.get("name"), str) else []
    names += [n for n in body["names"] if isinstance(n, str)] if isinstance(body.get("names"), list) else []
    _, values = ROUTES.find(exchange.method, exchange.path) or (None, {})
    number = values.get("droplet", "")
    if number.isascii() and number.isdigit() and (droplet := account.droplets.get(int(number))) is not None:
        names.append(droplet.name)
    if (firewall := account.firewalls.get(values.get("firewall", ""))) is not None:
        names.append(firewall.name)
    if (vpc := account.vpcs.get(values.get("vpc", ""))) is not None:
        names.append(vpc.name)
    if "tag" in values:
        names.append(values["tag"])
    if (asset := _asset_at(values, account)) is not None:
        names.append(asset.name)
    return names


def _asset_at(values: Mapping[str, str], account: Account) -> Asset | None:
    found = [account.table(TARGETS[name]).get(value) for name, value in values.items() if name in TARGETS]
    return found[-1] if found else None


def _refusal(err: ApiError, headers: Mapping[str, str]) -> Reply:
    body = {"id": err.id, "message": err.message, "request_id": random_uuid()}
    return Reply(err.status, body, {**err.headers, **headers, "x-request-id": body["request_id"]})
