"""What the sweeper sees of an account."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from engine.deploy.providers.digitalocean.api import ApiError, DigitalOceanApi, HttpClients
from engine.deploy.providers.digitalocean.inventory import DigitalOceanInventory, OwnedResource
from engine.model.budget import Priority
from tests.fakes.digitalocean import FakeDigitalOcean, Fault

DROPLET = "digitalocean:index/droplet:Droplet"
MACHINE = {"image": "ubuntu-24-04-x64", "size": "s-1vcpu-1gb", "region": "nyc3"}
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl a@b"


class Calls:
    """A budget without end that keeps what it was asked and told."""

    def __init__(self) -> None:
        self.priorities: list[Priority] = []
        self.observed: list[tuple[int, int, float | None]] = []

    async def acquire(self, priority: Priority) -> None:
        self.priorities.append(priority)

    def observe(self, *, limit: int, remaining: int, retry_after_seconds: float | None) -> None:
        self.observed.append((limit, remaining, retry_after_seconds))


@pytest.fixture
def calls() -> Calls:
    return Calls()


@pytest.fixture
def api(cloud: FakeDigitalOcean, clock: Any, calls: Calls) -> DigitalOceanApi:
    clients = HttpClients(cloud.transport())
    return DigitalOceanApi(
        endpoint="http://do.test", token="t", budget=calls, clock=clock, clients=clients, user_agent="stackyard/test"
    )


async def test_it_lists_all_pages_of_what_carries_our_tags(
    desk: Any, cloud: FakeDigitalOcean, api: DigitalOceanApi
) -> None:
    cloud.page_size = 2
    ours = ["stackyard:dep-1", "stackyard-installation:i"]
    for name in ("a", "b", "c"):
        await desk.create(DROPLET, {**MACHINE, "name": name, "tags": ours})
    await desk.create(DROPLET, {**MACHINE, "name": "gpu", "size": "gpu-h100x1-80gb", "tags": ours})
    await desk.create(DROPLET, {**MACHINE, "name": "theirs", "tags": ["stackyard-installation:other"]})
    for name, tags in (("files", ours), ("theirs", ["stackyard:dep-1"])):
        await desk.create("digitalocean:index/volume:Volume", {"name": name, "region": "nyc3", "size": 1, "tags": tags})
    rule = {"protocol": "tcp", "portRange": "22", "sourceAddresses": ["0.0.0.0/0"]}
    for tag in ("stackyard:dep-1", "web"):
        await desk.create("digitalocean:index/firewall:Firewall", {"name": tag, "tags": [tag], "inboundRules": [rule]})
    await desk.create("digitalocean:index/sshKey:SshKey", {"name": "laptop", "publicKey": KEY})
    found = await DigitalOceanInventory(api).resources("stackyard-installation:i")
    assert [(r.kind, r.name) for r in found] == [
        ("droplet", "a"),
        ("droplet", "b"),
        ("droplet", "c"),
        ("droplet", "gpu"),
        ("volume", "files"),
        ("firewall", "stackyard:dep-1"),
        ("tag", "stackyard:dep-1"),
    ]
    assert found[0].tags == tuple(ours)
    assert found[0].hourly_usd == Decimal("0.00744")
    assert found[0].created_at == datetime(2026, 11, 21, 10, 48, tzinfo=UTC)


async def test_it_deletes_each_kind_and_what_is_gone_already(
    desk: Any, cloud: FakeDigitalOcean, api: DigitalOceanApi, calls: Calls
) -> None:
    await desk.create(DROPLET, {**MACHINE, "name": "a", "tags": ["stackyard:dep-1", "stackyard-installation:i"]})
    inventory = DigitalOceanInventory(api)
    found = await inventory.resources("stackyard-installation:i")
    assert [r.kind for r in found] == ["droplet", "tag"]
    for resource in found:
        await inventory.delete(resource)
    assert list(cloud.tags) == ["stackyard-installation:i"]
    assert calls.priorities[-2:] == [Priority.DELETE, Priority.DELETE]
    await inventory.delete(OwnedResource("droplet", "1", "gone"))


async def test_a_refused_delete_is_an_error(cloud: FakeDigitalOcean, api: DigitalOceanApi) -> None:
    cloud.faults = [Fault("DELETE", "/v2/droplets", 403)]
    with pytest.raises(ApiError, match="403"):
        await api.delete_droplet("1")


async def test_the_budget_learns_from_every_answer(cloud: FakeDigitalOcean, api: DigitalOceanApi, calls: Calls) -> None:
    cloud.faults = [Fault("GET", "/v2/droplets", 429, headers={"retry-after": "3"})]
    assert await api.droplets_by_tag("x") == []
    assert calls.observed[:2] == [(0, 0, 3.0), (5000, 4816, None)]
    assert calls.priorities == [Priority.READ] * 3
