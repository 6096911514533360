"""Callers at the same time share a listing; none gets one that began before it asked."""

from __future__ import annotations

import asyncio

import pytest

from engine.model.errors import CloudError
from engine.reconcilers.inventory import SharedListings
from tests.fakes.clock import FakeClock
from tests.fakes.cloud import INSTALLATION, FakeCloud


async def test_many_who_ask_at_once_share_one_listing(clock: FakeClock) -> None:
    cloud = FakeCloud()
    shared = SharedListings(cloud, clock)
    await asyncio.gather(*(shared.resources(INSTALLATION) for _ in range(100)))
    assert (cloud.listings, clock.monotonic()) == (1, 0.0)


async def test_who_asks_later_gets_a_later_listing_and_not_too_soon(clock: FakeClock) -> None:
    cloud = FakeCloud()
    shared = SharedListings(cloud, clock)
    assert await shared.resources(INSTALLATION) == []
    thing = cloud.add("droplet", "1", INSTALLATION)
    assert await shared.resources(INSTALLATION) == [thing]
    assert (cloud.listings, clock.monotonic()) == (2, 1.0)
    await shared.delete(thing)
    clock.advance(5)
    assert await shared.resources(INSTALLATION) == []
    assert clock.monotonic() == 6.0


async def test_all_who_share_a_listing_learn_that_it_failed(clock: FakeClock) -> None:
    cloud = FakeCloud(unreachable=True)
    shared = SharedListings(cloud, clock)
    answers = await asyncio.gather(*(shared.resources(INSTALLATION) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(a, CloudError) for a in answers)
    cloud.unreachable = False
    assert await shared.resources(INSTALLATION) == []
    cloud.unreachable = True
    with pytest.raises(CloudError):
        await shared.resources(INSTALLATION)
