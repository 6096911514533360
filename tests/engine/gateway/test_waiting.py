"""The lines in front of deployments: order, limits, room, and places given back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from engine.gateway.routes import Outlook, Route, RouteTable, Upstream
from engine.gateway.waiting import ROOM_OF_TIER, Lines, Patience
from engine.model.clock import SystemClock
from engine.model.deployment import Phase
from engine.model.errors import Conflict, RateLimited, StackyardError
from engine.model.tiers import Tier

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROUTE = Route(
    deployment_id="dep_1", org_id="org_1", phase=Phase.ACTIVE, reason="", fingerprint="", token="t",
    upstreams=(Upstream("r1-0", "https://127.0.0.1:1"),), concurrency_limit=2,
)  # fmt: skip


class Front:
    """Lines over a table with one route."""

    def __init__(self, route: Route = ROUTE, patience: Patience = Patience()) -> None:
        self.table = RouteTable()
        self.woken: list[Route] = []
        self.refused: Callable[[str, StackyardError], None] = lambda *_: None
        self.lines = Lines(self.table, SystemClock(), patience, self)
        self.said = 0
        self.put(route)

    def wake(self, route: Route) -> None:
        self.woken.append(route)

    async def close(self) -> None:
        """Nothing to end."""

    def put(self, route: Route | None) -> None:
        if route is None:
            self.table.drop_route("dep_1")
        else:
            self.route = route
            self.table.put_route(route)
        self.table.announce()

    async def say(self) -> None:
        self.said += 1

    def waits(self, size: int = 10) -> Coroutine[Any, Any, None]:
        return self.lines.wait(self.route, size, self.say)


async def turn() -> None:
    """Let everybody come to where they wait."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("values", "outlook"),
    [
        ({}, Outlook.SERVES),
        ({"upstreams": ()}, Outlook.PAUSES),
        ({"phase": Phase.PROVISIONING, "upstreams": ()}, Outlook.REFUSES),
        ({"phase": Phase.PROVISIONING, "was_woken": True, "upstreams": ()}, Outlook.WAKES),
        ({"phase": Phase.PROVISIONING, "was_woken": True}, Outlook.SERVES),
        ({"phase": Phase.SCALING, "was_woken": True, "upstreams": ()}, Outlook.WAKES),
        ({"phase": Phase.ASLEEP, "asleep_since": NOW, "upstreams": ()}, Outlook.SLEEPS),
        ({"phase": Phase.ACTIVE, "asleep_since": NOW}, Outlook.SLEEPS),
        ({"phase": Phase.ASLEEP, "was_woken": True, "upstreams": ()}, Outlook.WAKES),
        ({"phase": Phase.FAILED, "was_woken": True}, Outlook.REFUSES),
        ({"phase": Phase.TEARDOWN, "asleep_since": NOW}, Outlook.REFUSES),
        ({"suspended_reason": "no money", "asleep_since": NOW}, Outlook.REFUSES),
    ],
)
def test_outlook(values: dict[str, Any], outlook: Outlook) -> None:
    assert replace(ROUTE, **values).outlook is outlook


async def test_no_more_than_the_limit_run_and_the_others_follow_in_order() -> None:
    front = Front()
    assert front.lines.enter(ROUTE) and front.lines.enter(ROUTE) and not front.lines.enter(ROUTE)
    waiting = [asyncio.ensure_future(front.waits()) for _ in range(3)]
    await turn()
    for done in range(3):
        assert [w.done() for w in waiting] == [n < done for n in range(3)]
        assert not front.lines.enter(ROUTE)  # nobody overtakes those who wait
        front.lines.leave("dep_1")
        await turn()
    assert all(w.done() for w in waiting)
    front.put(replace(ROUTE, concurrency_limit=3))
    assert front.lines.enter(front.route) and not front.lines.enter(front.route)
    for _ in range(3):
        front.lines.leave("dep_1")
    assert not front.lines._lines and not front.lines._held


async def test_raised_limit_lets_go_at_once() -> None:
    front = Front()
    front.lines.enter(ROUTE)
    front.lines.enter(ROUTE)
    waiting = [asyncio.ensure_future(front.waits()) for _ in range(2)]
    await turn()
    front.put(replace(ROUTE, concurrency_limit=None))
    await asyncio.gather(*waiting)


@pytest.mark.parametrize("tier", [Tier.BASIC, Tier.PRO])
async def test_full_line_refuses_with_retry_after(tier: Tier) -> None:
    front = Front(replace(ROUTE, tier=tier, concurrency_limit=1))
    front.lines.enter(front.route)
    waiting = [asyncio.ensure_future(front.waits()) for _ in range(ROOM_OF_TIER[tier].requests)]
    await turn()
    with pytest.raises(RateLimited, match="concurrency limit of 1") as refused:
        await front.waits()
    assert refused.value.details["retry_after_seconds"] and refused.value.details["limit"] == len(waiting)
    waiting.pop().cancel()
    await turn()
    waiting.append(asyncio.ensure_future(front.waits()))
    await turn()
    assert not waiting[-1].done()
    front.put(None)
    assert all(isinstance(e, Conflict) for e in await asyncio.gather(*waiting, return_exceptions=True))
    front.lines.leave("dep_1")
    assert not front.lines._lines and not front.lines._held and not front.lines._held_bytes


async def test_bytes_that_wait_are_limited() -> None:
    front = Front(replace(ROUTE, concurrency_limit=1))
    front.lines.enter(front.route)
    half = ROOM_OF_TIER[Tier.BASIC].bytes // 2
    waiting = [asyncio.ensure_future(front.waits(half)) for _ in range(2)]
    await turn()
    with pytest.raises(RateLimited) as refused:
        await front.waits(1)
    assert refused.value.details["limit_bytes"] == 2 * half
    for one in waiting:
        one.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert not front.lines._held_bytes


async def test_place_of_one_who_leaves_just_when_it_was_given_goes_to_the_next() -> None:
    front = Front(replace(ROUTE, concurrency_limit=1))
    front.lines.enter(front.route)
    first, second = (asyncio.ensure_future(front.waits()) for _ in range(2))
    await turn()
    front.lines.leave("dep_1")  # gives the place to the first…
    first.cancel()  # … who leaves before hearing of it
    await second
    front.lines.leave("dep_1")
    assert not front.lines._lines


async def test_patience_ends_with_what_is_the_matter() -> None:
    front = Front(replace(ROUTE, concurrency_limit=1), Patience(0.05, 0.05, 0.01))
    front.lines.enter(front.route)
    with pytest.raises(RateLimited, match="no place became free"):
        await front.waits()
    assert front.said


async def test_one_that_fell_asleep_although_somebody_is_served_is_woken_again() -> None:
    front = Front()
    assert front.lines.enter(front.route)
    front.put(replace(ROUTE, asleep_since=NOW))  # its autoscaler did not know yet
    assert [route.asleep_since for route in front.woken] == [NOW]
    front.lines.leave("dep_1")
    front.put(replace(ROUTE, asleep_since=NOW))
    assert len(front.woken) == 1 and not front.lines._lines


async def test_sleeping_one_is_woken_by_whoever_waits() -> None:
    front = Front(replace(ROUTE, upstreams=(), phase=Phase.ASLEEP, asleep_since=NOW))
    waiting = asyncio.ensure_future(front.waits())
    await turn()
    assert front.woken and not waiting.done()
    front.put(ROUTE)
    await waiting
