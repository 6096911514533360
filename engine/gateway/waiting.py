"""The lines in front of deployments: who goes to a replica, who waits, who is turned away. Calls no replica."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping
from copy import copy
from dataclasses import dataclass
from types import MappingProxyType
from typing import Protocol

from engine.gateway.routes import RETRY_AFTER_SECONDS, Outlook, Route, RouteTable, not_serving
from engine.model.clock import Clock
from engine.model.errors import Conflict, RateLimited, StackyardError, Unavailable
from engine.model.tiers import Tier

PAUSE_SECONDS = 5.0
"""A deployment that serves, but whose replicas went for a moment (one restarts), is waited for this long."""

_MIB = 1024 * 1024


@dataclass(frozen=True)
class Room:
    """What an organisation may have waiting here at the same time, over all its deployments."""

    requests: int
    bytes: int


ROOM_OF_TIER: Mapping[Tier, Room] = MappingProxyType(
    {Tier.BASIC: Room(32, 64 * _MIB), Tier.PRO: Room(256, 128 * _MIB), Tier.ENTERPRISE: Room(2048, 256 * _MIB)}
)
MOST_BYTES = 1024 * _MIB
"""Bodies that wait in this process, of everybody."""


class WakeTimeout(StackyardError):
    """A sleeping deployment did not wake in time. `details` has `retry_after_seconds`."""

    code = "wake_timeout"


@dataclass(frozen=True)
class Patience:
    """How long requests wait.

    Attributes:
        wake_seconds: until a replica is ready, or until it is one's turn.
        pause_seconds: for a deployment that serves and has no replica at this moment.
        word_seconds: how often a client that wants a stream is told that it waits.
    """

    wake_seconds: float = 1200.0
    pause_seconds: float = PAUSE_SECONDS
    word_seconds: float = 10.0


class Wakes(Protocol):
    """Wakes deployments: each once a burst.

    Attributes:
        refused: to be called with what speaks against it.
    """

    refused: Callable[[str, StackyardError], None]

    def wake(self, route: Route) -> None: ...

    async def close(self) -> None: ...


class _Waiter:
    __slots__ = ("future", "may_go", "size")

    def __init__(self, size: int) -> None:
        self.size = size
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.may_go = False


class _Line:
    """One deployment's: requests at replicas, requests that wait in the order they came."""

    __slots__ = ("paused_at", "running", "waiters")

    def __init__(self) -> None:
        self.running = 0
        self.waiters: deque[_Waiter] = deque()
        self.paused_at: float | None = None


@dataclass
class _Held:
    requests: int = 0
    bytes: int = 0


class Lines:
    """All lines of this process.

    Attributes:
        patience: how long requests wait.

    Args:
        waker: asked about every deployment that sleeps while somebody waits.
    """

    def __init__(self, table: RouteTable, clock: Clock, patience: Patience, waker: Wakes) -> None:
        self._table = table
        self._clock = clock
        self.patience = patience
        self._waker = waker
        self._lines: dict[str, _Line] = {}
        self._held: dict[str, _Held] = {}
        self._held_bytes = 0
        table.listen(self.routes_changed)
        waker.refused = self.refuse

    def wake(self, route: Route) -> None:
        """Somebody comes to a deployment that sleeps."""
        self._waker.wake(route)

    async def close(self) -> None:
        await self._waker.close()

    def enter(self, route: Route) -> bool:
        """Take a place at the deployment's replicas, if there is one at once; `leave` it afterwards."""
        line = self._lines.get(route.deployment_id) or _Line()
        if line.waiters or not _has_place(route, line):
            return False
        self._lines[route.deployment_id] = line
        line.running += 1
        return True

    def leave(self, deployment_id: str) -> None:
        """Give the place to whoever waits longest."""
        line = self._lines[deployment_id]
        line.running -= 1
        if line.waiters:
            self._move(deployment_id, line)
        elif not line.running:
            del self._lines[deployment_id]

    def refuse_if_full(self, route: Route, announced_bytes: int) -> None:
        """Before a body is read that would have to wait.

        Raises:
            RateLimited: the organisation has too much waiting already.
        """
        room, held = ROOM_OF_TIER[route.tier], self._held.get(route.org_id, _Held())
        line = self._lines.get(route.deployment_id)
        if held.requests >= room.requests:
            raise RateLimited(
                f"{held.requests} requests of your organisation wait already, the most its tier ({route.tier}) may have"
                f"{_limit_of(route)}; try again later, or raise the concurrency limit or the replicas",
                retry_after_seconds=RETRY_AFTER_SECONDS, waiting=held.requests, limit=room.requests,
                **({"concurrency_limit": route.concurrency_limit} if route.concurrency_limit and line else {}),
            )  # fmt: skip
        if held.bytes + announced_bytes > room.bytes or self._held_bytes + announced_bytes > MOST_BYTES:
            raise RateLimited(
                f"the requests that wait hold {held.bytes} bytes already; {announced_bytes} more would pass the limit "
                f"of {room.bytes} bytes for the tier {route.tier}; try again later",
                retry_after_seconds=RETRY_AFTER_SECONDS, waiting_bytes=held.bytes, limit_bytes=room.bytes,
            )  # fmt: skip

    async def wait(self, route: Route, size: int, say: Callable[[], Awaitable[None]]) -> None:
        """Wait for a place; `leave` it afterwards.

        Args:
            size: bytes of the request that lie here meanwhile.
            say: called every `word_seconds`.

        Raises:
            RateLimited: too much waits already, or no place became free in time.
            WakeTimeout: no replica became ready in time.
            Unavailable: the deployment has no replica for longer than a moment.
            StackyardError: what happened to the deployment meanwhile: deleted, failed, suspended.
        """
        if self.enter(route):  # a place came free while the body was read
            return
        self.refuse_if_full(route, size)
        deployment_id, waiter = route.deployment_id, _Waiter(size)
        line = self._lines.setdefault(deployment_id, _Line())
        self._hold(route.org_id, 1, size)
        line.waiters.append(waiter)
        self._move(deployment_id, line)
        try:
            await self._until_may_go(deployment_id, line, waiter, say)
        except BaseException:
            if waiter.may_go:
                self.leave(deployment_id)
            else:
                self._drop(deployment_id, line, waiter)
            waiter.future.cancel()
            raise
        finally:
            self._hold(route.org_id, -1, -size)

    async def _until_may_go(
        self, deployment_id: str, line: _Line, waiter: _Waiter, say: Callable[[], Awaitable[None]]
    ) -> None:
        began = spoke = self._clock.monotonic()
        while True:
            now = self._clock.monotonic()
            ends = began + self.patience.wake_seconds
            if line.paused_at is not None:
                ends = min(ends, max(began, line.paused_at) + self.patience.pause_seconds)
            if now >= ends and not waiter.future.done():
                raise self._lost_patience(deployment_id, now - began)
            speaks = spoke + self.patience.word_seconds
            await asyncio.wait((waiter.future,), timeout=max(0.0, min(ends, speaks, now + 1.0) - now))
            if waiter.future.done():
                return waiter.future.result()
            if self._clock.monotonic() >= speaks:
                spoke = self._clock.monotonic()
                await say()

    def _lost_patience(self, deployment_id: str, waited: float) -> StackyardError:
        route = self._table.route(deployment_id)
        if route is None:
            return _gone(deployment_id)
        if route.outlook is Outlook.SERVES:
            return RateLimited(
                f"no place became free in {waited:.0f} s{_limit_of(route)}; try again later, or raise the limit or the "
                "replicas", retry_after_seconds=RETRY_AFTER_SECONDS, concurrency_limit=route.concurrency_limit,
            )  # fmt: skip
        if route.outlook in (Outlook.SLEEPS, Outlook.WAKES):
            return WakeTimeout(
                f"deployment {deployment_id} was woken by your request and is not ready after {waited:.0f} s; it goes "
                "on starting: poll it until it is active, then send the request again",
                retry_after_seconds=60, status=route.phase.value,
            )  # fmt: skip
        return not_serving(route) or Unavailable(
            "no replica is ready; try again in a few seconds", retry_after_seconds=RETRY_AFTER_SECONDS
        )

    def routes_changed(self, deployment_ids: Collection[str]) -> None:
        """Look again at the lines of these deployments.

        One that fell asleep although requests run was put to sleep just when they came: they wake it again, or they
        would be broken off at the limit of draining.
        """
        for deployment_id in deployment_ids:
            line = self._lines.get(deployment_id)
            if line is not None and line.waiters:
                self._move(deployment_id, line)
            elif line is not None and (route := self._table.route(deployment_id)) and route.outlook is Outlook.SLEEPS:
                self._waker.wake(route)

    def refuse(self, deployment_id: str, error: StackyardError) -> None:
        """Send away everybody who waits for a deployment."""
        line = self._lines.get(deployment_id)
        if line is not None:
            _refuse_all(line, error)

    def _move(self, deployment_id: str, line: _Line) -> None:
        """Let go in whoever may."""
        route = self._table.route(deployment_id)
        if route is None:
            _refuse_all(line, _gone(deployment_id))
            return
        if route.outlook is Outlook.REFUSES:
            _refuse_all(line, not_serving(route) or _gone(deployment_id))
            return
        if route.outlook is not Outlook.PAUSES:
            line.paused_at = None
        elif line.paused_at is None:
            line.paused_at = self._clock.monotonic()
        if route.outlook is Outlook.SLEEPS:
            self._waker.wake(route)
        while line.waiters and _has_place(route, line):
            waiter = line.waiters.popleft()
            if not waiter.future.done():
                line.running += 1
                waiter.may_go = True
                waiter.future.set_result(None)

    def _drop(self, deployment_id: str, line: _Line, waiter: _Waiter) -> None:
        if waiter in line.waiters:
            line.waiters.remove(waiter)
        if not line.waiters and not line.running and self._lines.get(deployment_id) is line:
            del self._lines[deployment_id]

    def _hold(self, org_id: str, requests: int, size: int) -> None:
        held = self._held.setdefault(org_id, _Held())
        held.requests += requests
        held.bytes += size
        self._held_bytes += size
        if not held.requests:
            del self._held[org_id]


def _has_place(route: Route, line: _Line) -> bool:
    if not route.upstreams or route.outlook not in (Outlook.SERVES, Outlook.SLEEPS):
        return False  # one that was told to sleep a moment ago and still has replicas is on its way back: it was woken
    return route.concurrency_limit is None or line.running < route.concurrency_limit


def _refuse_all(line: _Line, error: StackyardError) -> None:
    while line.waiters:
        waiter = line.waiters.popleft()
        if not waiter.future.done():
            waiter.future.set_exception(copy(error))  # one each: an error remembers who raised it
            waiter.future.exception()  # who left at this very moment does not ask


def _gone(deployment_id: str) -> StackyardError:
    return Conflict(f"deployment {deployment_id} was deleted while this request waited", status="inactive")


def _limit_of(route: Route) -> str:
    if route.concurrency_limit is None:
        return ""
    return f" behind the concurrency limit of {route.concurrency_limit} of deployment {route.deployment_id}"
