"""Pools, their prices and places, and what image references look like."""

from __future__ import annotations

from decimal import Decimal

import pytest

from api.handlers import places_of
from engine.model.errors import InvalidSpec
from engine.model.hosts import DockerHost
from stacks import catalog, pools

HOST = DockerHost(name="lab", host="unix:///d.sock", pools={"ADA_80_PRO": 2, "CPU": 1}, region="cellar")


def test_documented_prices_are_per_second_and_hour() -> None:
    """The document's table, both columns."""
    hourly = {"AMPERE_16": "0.36", "AMPERE_24": "0.36", "AMPERE_48": "1.08", "ADA_48_PRO": "1.08",
              "AMPERE_80": "2.88", "ADA_80_PRO": "5.04"}  # fmt: skip
    for pool, usd in hourly.items():
        price = pools.usd_per_second(pool, {})
        assert price is not None and price * 3600 == Decimal(usd)
    assert pools.usd_per_second("HOPPER_141", {}) is None
    assert pools.usd_per_second("AMPERE_16", {"gpu_second:AMPERE_16": Decimal(1)}) == 1


def test_droplets_of_pools_are_in_regions_of_the_catalog() -> None:
    for pool in pools.POOLS.values():
        for size in pool.droplets:
            assert set(size.regions) <= set(catalog.REGIONS)


def test_places_are_in_order_of_preference_own_hosts_first() -> None:
    sizes = {"gpu-h100x1-80gb": frozenset({"tor1"})}
    places = places_of(["ADA_80_PRO", "CPU"], (HOST,), sizes, is_sold=True)
    assert [(p.target, p.host or p.region) for p in places[:3]] == [
        ("docker", "lab"), ("digitalocean", "nyc2"), ("digitalocean", "tor1"),
    ]  # fmt: skip
    assert places[0].devices == ("0", "1") and places[0].free == 2
    assert places[1].why_not and not places[2].why_not and places[-1].pool == "CPU"
    assert places_of(["ADA_80_PRO"], (), None, is_sold=False) == []


@pytest.mark.parametrize(
    "image",
    [
        "ghcr.io/you/hypereal-echo:v1", "runpod/pytorch:2.4.0-py3.11-cuda12.4.1-devel-ubuntu22.04", "python",
        "127.0.0.1:5000/a/b_c/d--e", "localhost:5000/a@sha256:" + "0" * 64, "a.b/c:tag@sha256:" + "f" * 64,
    ],
)  # fmt: skip
def test_image_references_are_taken(image: str) -> None:
    pools.check_image(image)


@pytest.mark.parametrize(
    "image", ["", "you/UPPER", "a b", "a:", "a:b:c", "https://a/b", "a//b", "a@sha256:12", "a\n", "a" * 600]
)
def test_other_texts_are_no_image_references(image: str) -> None:
    with pytest.raises(InvalidSpec, match="not an image reference"):
        pools.check_image(image)
