"""Bodies of requests take so much memory and no more, of one organisation and of all."""

from __future__ import annotations

from typing import Any

import pytest

from engine.gateway import asgi
from engine.gateway.bodies import SMALL_BYTES, Bodies, Body
from engine.model.errors import RateLimited


def test_an_organisation_and_all_together_have_their_limits_until_bodies_are_let_go() -> None:
    bodies = Bodies(most_of_org=4 * SMALL_BYTES, most_bytes=6 * SMALL_BYTES)
    first, second, other = Body(bodies, "org_1"), Body(bodies, "org_1"), Body(bodies, "org_2")
    first.grow(SMALL_BYTES)  # not counted
    first.grow(2 * SMALL_BYTES)
    with pytest.raises(RateLimited) as refused:
        second.grow(2 * SMALL_BYTES)
    assert refused.value.details["limit_bytes"] == 4 * SMALL_BYTES and refused.value.details["retry_after_seconds"]
    other.grow(3 * SMALL_BYTES)
    with pytest.raises(RateLimited):
        Body(bodies, "org_3").grow(2 * SMALL_BYTES)
    for body in (first, first, second, other):
        body.free()
    Body(bodies, "org_1").grow(4 * SMALL_BYTES)


async def test_no_more_is_read_of_a_body_there_is_no_room_for() -> None:
    share, read = Body(Bodies(most_of_org=3 * SMALL_BYTES), "org_1"), 0

    async def receive() -> dict[str, Any]:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": b"x" * SMALL_BYTES, "more_body": True}

    with pytest.raises(RateLimited):
        await asgi.read_body({"headers": []}, receive, 1 << 30, share.grow)
    assert read == 4
