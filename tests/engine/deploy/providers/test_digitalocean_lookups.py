"""Look-up functions: what they find, in the SDK's words, and what they refuse."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from engine.deploy.property import Secret
from engine.deploy.provider import ProviderError
from engine.deploy.providers.digitalocean import lookups
from tests.fakes.digitalocean import FakeDigitalOcean

SDK = Path(str(find_spec("pulumi_digitalocean").origin)).parent  # type: ignore[union-attr]
DROPLET = "digitalocean:index/droplet:Droplet"
MACHINE = {"image": "ubuntu-24-04-x64", "size": "s-1vcpu-1gb", "region": "nyc3"}
SSH = {"protocol": "tcp", "portRange": "22", "sourceAddresses": ["0.0.0.0/0"]}
RULE = {"entryProtocol": "http", "entryPort": 80, "targetProtocol": "http", "targetPort": 8080}
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl a@b"


async def look_up(desk: Any, name: str, /, **args: Any) -> Any:
    return await desk.provider.invoke(f"digitalocean:index/{name}:{name}", args)


@pytest.fixture
async def account(desk: Any, cloud: FakeDigitalOcean) -> FakeDigitalOcean:
    """One of everything that can be looked up."""
    made = {
        "tag:Tag": {"name": "a"},
        "sshKey:SshKey": {"name": "k", "publicKey": KEY},
        "vpc:Vpc": {"name": "v", "region": "nyc3"},
        "volume:Volume": {"name": "vol", "region": "nyc3", "size": 10, "tags": ["a"]},
        "reservedIp:ReservedIp": {"region": "nyc3"},
        "domain:Domain": {"name": "example.com"},
        "dnsRecord:DnsRecord": {"domain": "example.com", "type": "A", "name": "www", "value": "1.2.3.4"},
        "project:Project": {"name": "p"},
        "droplet:Droplet": {**MACHINE, "name": "web", "tags": ["a"]},
        "certificate:Certificate": {"name": "c", "type": "lets_encrypt", "domains": ["example.com"]},
        "spacesKey:SpacesKey": {"name": "s", "grants": [{"bucket": "b", "permission": "read"}]},
        "firewall:Firewall": {"name": "f", "tags": ["a"], "inboundRules": [SSH]},
        "loadBalancer:LoadBalancer": {
            "name": "lb",
            "region": "nyc3",
            "forwardingRules": [RULE],
            "healthcheck": {"protocol": "tcp", "port": 80},
        },
        "kubernetesCluster:KubernetesCluster": {
            "name": "k",
            "region": "nyc3",
            "version": "1.32.5-do.0",
            "nodePool": {"name": "first", "size": "s-2vcpu-4gb", "nodeCount": 2},
        },
    }
    for type_, inputs in made.items():
        await desk.create(f"digitalocean:index/{type_}", inputs)
    volume = next(iter(cloud.more.members["volumes"]))
    await desk.create("digitalocean:index/volumeSnapshot:VolumeSnapshot", {"name": "vs", "volumeId": volume})
    droplet = str(next(iter(cloud.droplets)))
    await desk.create("digitalocean:index/dropletSnapshot:DropletSnapshot", {"name": "ds", "dropletId": droplet})
    await desk.create(DROPLET, {**MACHINE, "name": "gpu", "size": "gpu-h100x1-80gb"})
    return cloud


def arguments(name: str, cloud: FakeDigitalOcean) -> dict[str, Any]:
    return {
        "getRegion": {"slug": "nyc3"},
        "getImage": {"slug": "ubuntu-24-04-x64"},
        "getDroplet": {"name": "web"},
        "getSshKey": {"name": "k"},
        "getTag": {"name": "a"},
        "getVpc": {"name": "v"},
        "getVolume": {"name": "vol", "region": "NYC3"},
        "getProject": {"name": "p"},
        "getDomain": {"name": "example.com"},
        "getRecords": {"domain": "example.com"},
        "getRecord": {"domain": "example.com", "name": "www"},
        "getReservedIp": {"ipAddress": next(iter(cloud.more.members["reserved_ips"]))},
        "getCertificate": {"name": "c"},
        "getFirewall": {"firewallId": next(iter(cloud.firewalls))},
        "getLoadBalancer": {"name": "lb"},
        "getKubernetesCluster": {"name": "k"},
        "getSpacesKey": {"accessKey": next(iter(cloud.more.members["keys"]))},
        "getDropletSnapshot": {"name": "ds"},
        "getVolumeSnapshot": {"nameRegex": "^v"},
    }.get(name, {})


@pytest.mark.parametrize("name", [token.rsplit(":", 1)[1] for token in lookups.functions()])
async def test_a_result_has_just_what_the_sdk_reads(desk: Any, account: FakeDigitalOcean, name: str) -> None:
    """The SDK's own source says which names it reads from the answer; importing it would take seconds."""
    found = await look_up(desk, name, **arguments(name, account))
    module = re.sub(r"([A-Z])", lambda m: f"_{m[1].lower()}", name)
    source = (SDK / f"{module}.py").read_text()
    wanted = set(re.findall(r"pulumi\.get\(__ret__, '(\w+)'\)", source))
    told = {re.sub(r"([A-Z])", lambda m: f"_{m[1].lower()}", key) for key in found}
    assert wanted
    assert told == wanted
    assert found["id"] not in (None, "")


async def test_listings_are_filtered_and_sorted_as_asked(desk: Any) -> None:
    filters = [
        {"key": "regions", "values": ["nyc3", "nyc2"]},
        {"key": "vcpus", "values": ["1", "20"]},
        {"key": "available", "values": ["true"]},
    ]
    sorts = [{"key": "price_monthly", "direction": "desc"}]
    found = await look_up(desk, "getSizes", filters=filters, sorts=sorts)
    assert [s["slug"] for s in found["sizes"]] == ["gpu-h100x1-80gb", "s-1vcpu-1gb"]
    gpu = found["sizes"][0]
    assert gpu["priceMonthly"] == 2522.16
    assert gpu["gpuInfos"] == [
        {
            "count": 1,
            "model": "nvidia_h100",
            "vrams": [{"amount": 80, "unit": "gib"}],
            "supportedPartitionModes": [],
        }
    ]
    assert found["filters"] == filters


@pytest.mark.parametrize(
    ("filter_", "slugs"),
    [
        ({"key": "slug", "values": ["S-1VCPU-1GB"]}, ["s-1vcpu-1gb"]),
        ({"key": "slug", "values": ["^s-"], "matchBy": "re"}, ["s-1vcpu-1gb", "s-2vcpu-2gb"]),
        ({"key": "slug", "values": ["h100"], "matchBy": "substring"}, ["gpu-h100x1-80gb"]),
        ({"key": "regions", "values": ["nyc3", "ams3"], "all": True}, ["s-1vcpu-1gb"]),
        ({"key": "price_hourly", "values": ["3.39"]}, ["gpu-h100x1-80gb"]),
    ],
)
async def test_how_filters_match(desk: Any, filter_: dict[str, Any], slugs: list[str]) -> None:
    found = await look_up(desk, "getSizes", filters=[filter_])
    assert [s["slug"] for s in found["sizes"]] == slugs


@pytest.mark.parametrize(
    ("name", "args", "words"),
    [
        ("getSizes", {"filters": [{"key": "colour", "values": ["x"]}]}, "cannot be filtered by 'colour'"),
        ("getSizes", {"filters": [{"key": "vcpus", "values": ["many"]}]}, "'many' is no number"),
        ("getSizes", {"filters": [{"key": "slug", "values": ["("], "matchBy": "re"}]}, "no regular expression"),
        ("getSizes", {"sorts": [{"key": "regions"}]}, "cannot be sorted by 'regions'"),
        ("getSizes", {"sorts": [{"key": "slug", "direction": "up"}]}, "must be asc or desc"),
        ("getRegion", {"slug": "moon1"}, "Region does not exist: moon1"),
        ("getRegion", {}, "missing required argument 'slug'"),
        ("getImage", {"slug": "x", "id": 1}, "exactly one of id, name, slug"),
        ("getImage", {"slug": "nothing"}, "image not found"),
        ("getDroplet", {"name": "nobody"}, "no droplet found with name nobody"),
        ("getVpc", {"region": "nyc3"}, "no VPC found with region nyc3"),
        ("getReservedIp", {"ipAddress": "1.2.3.4"}, "reserved ip not found"),
    ],
)
async def test_what_cannot_be_found_is_said(desk: Any, name: str, args: dict[str, Any], words: str) -> None:
    with pytest.raises(ProviderError, match=re.escape(words)):
        await look_up(desk, name, **args)


async def test_gpu_droplets_are_found_when_asked_for(desk: Any, account: FakeDigitalOcean) -> None:
    assert (await look_up(desk, "getDroplet", name="gpu", gpu=True))["size"] == "gpu-h100x1-80gb"
    assert [d["name"] for d in (await look_up(desk, "getDroplets", gpus=True))["droplets"]] == ["gpu"]


async def test_own_images_are_found_by_name(desk: Any) -> None:
    found = await look_up(desk, "getImage", name="mine")
    assert (found["id"], found["private"], found["tags"]) == (8, True, ["a", "b"])
    public = await look_up(desk, "getImage", name="24.04 (LTS) x64", source="all")
    assert public["slug"] == "ubuntu-24-04-x64"


async def test_the_default_project_is_found_without_a_name(desk: Any) -> None:
    assert (await look_up(desk, "getProject"))["id"] == "default-project"


async def test_secret_arguments_are_opened(desk: Any) -> None:
    assert (await look_up(desk, "getRegion", slug=Secret("nyc3")))["name"] == "New York 3"


async def test_looking_up_changes_nothing(desk: Any, account: FakeDigitalOcean) -> None:
    before = len(account.requests)
    for token in lookups.functions():
        name = token.rsplit(":", 1)[1]
        await look_up(desk, name, **arguments(name, account))
    assert {r.method for r in account.requests[before:]} == {"GET"}
