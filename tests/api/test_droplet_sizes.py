"""What the cloud sells is asked now and then, and its silence holds nobody up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from api.droplet_sizes import KEEP_SECONDS, DropletSizes
from engine.deploy.providers.digitalocean.api import ApiError
from tests.fakes.clock import FakeClock


@dataclass
class Api:
    """Answers `/v2/sizes`, or fails."""

    has_token: bool = True
    error: Exception | None = None
    asked: int = 0

    async def listing(self, path: str, key: str) -> list[dict[str, Any]]:
        assert (path, key) == ("/v2/sizes", "sizes")
        self.asked += 1
        if self.error is not None:
            raise self.error
        return [
            {"slug": "big", "available": True, "regions": ["tor1", "nyc2"]},
            {"slug": "gone", "available": False, "regions": ["tor1"]},
        ]


@pytest.fixture
def cloud() -> Api:
    return Api()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


async def test_an_answer_is_kept_for_a_while(cloud: Api, clock: FakeClock) -> None:
    sizes = DropletSizes(cloud, clock)  # type: ignore[arg-type]
    assert await sizes.refresh() == {"big": frozenset({"tor1", "nyc2"})} == await sizes.refresh() == sizes.latest
    assert cloud.asked == 1
    clock.advance(KEEP_SECONDS)
    await sizes.refresh()
    assert cloud.asked == 2


@pytest.mark.parametrize("error", [ApiError("GET", "/v2/sizes", 503, "away"), TimeoutError()])
async def test_a_cloud_that_does_not_say_is_not_asked_again_at_once(
    cloud: Api, clock: FakeClock, error: Exception
) -> None:
    cloud.error = error
    sizes = DropletSizes(cloud, clock)  # type: ignore[arg-type]
    assert sizes.is_sold and await sizes.refresh() is None and await sizes.refresh() is None
    assert cloud.asked == 1


async def test_without_a_token_nobody_is_asked(cloud: Api, clock: FakeClock) -> None:
    cloud.has_token = False
    sizes = DropletSizes(cloud, clock)  # type: ignore[arg-type]
    assert not sizes.is_sold and await sizes.refresh() is None and cloud.asked == 0
