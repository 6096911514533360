"""The provider against the sandbox cloud: two readings of the same API meet."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from engine.deploy.provider import PartialFailure, ProviderError
from engine.deploy.providers.digitalocean import DigitalOceanProvider
from engine.model.budget import Unlimited
from engine.sandbox.admin import SandboxAdmin
from engine.sandbox.app import SandboxApp
from engine.sandbox.cloud import Cloud
from engine.sandbox.faults import Faults
from engine.sandbox.limits import Limiter, RateLimits
from engine.sandbox.records import Timings

DROPLET = "digitalocean:index/droplet:Droplet"
SSH_KEY = "digitalocean:index/sshKey:SshKey"
FIREWALL = "digitalocean:index/firewall:Firewall"
TAG = "digitalocean:index/tag:Tag"
MACHINE = {"image": "gpu-h100x1-base", "size": "gpu-h100x1-80gb", "region": "nyc2", "name": "w"}
OWNED = {**MACHINE, "tags": ["stackyard:dep-1", "stackyard-installation:i"]}
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl a@b\n"

Check = Callable[..., Any]


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def sandbox(clock: Any, faults: Faults) -> SandboxApp:
    cloud = Cloud(clock, Timings(boot_seconds=10), droplet_limit=25)
    limiter = Limiter(RateLimits(0, 0, 0))
    return SandboxApp(cloud, faults, limiter, admin=SandboxAdmin(cloud, faults, limiter))


class Dropping(httpx.ASGITransport):
    """A connection that the sandbox kills is one that breaks, not an error of the application."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            return await super().handle_async_request(request)
        except ConnectionError as err:
            raise httpx.ReadError("connection lost", request=request) from err


@pytest.fixture
async def provider(sandbox: SandboxApp, clock: Any) -> AsyncIterator[DigitalOceanProvider]:
    provider = DigitalOceanProvider(
        environment={"DIGITALOCEAN_TOKEN": "token-a"},
        budget=Unlimited(),
        clock=clock,
        api_endpoint="http://do.test",
        transport=Dropping(sandbox),
    )
    await provider.configure({})
    yield provider
    await provider.close()


async def create(provider: DigitalOceanProvider, type_: str, inputs: dict[str, Any], seconds: float = 0) -> Any:
    checked = await provider.check(f"urn::{type_}::x", type_, {}, inputs, b"seed")
    assert not checked.failures
    created = await provider.create("u", type_, checked.inputs, seconds, preview=False)
    return created.id, checked.inputs, created.outputs


async def test_all_types_live_and_die(provider: DigitalOceanProvider, clock: Any) -> None:
    made = {
        TAG: {"name": "stackyard:dep-1"},
        SSH_KEY: {"name": "k", "publicKey": KEY},
        FIREWALL: {
            "name": "f",
            "tags": ["stackyard:dep-1"],
            "inboundRules": [
                {"protocol": "tcp", "portRange": "8443", "sourceAddresses": ["10.0.0.0/8"]},
                {"protocol": "icmp", "sourceAddresses": ["0.0.0.0/0"]},
            ],
            "outboundRules": [{"protocol": "udp", "portRange": "1-65535", "destinationAddresses": ["::/0"]}],
        },
        DROPLET: OWNED,
    }
    ids = {}
    for type_, inputs in made.items():
        id, checked, outputs = await create(provider, type_, inputs)
        ids[type_] = id
        assert await provider.lookup("u", type_, checked) == id
        read = await provider.read("u", type_, id, checked, outputs)
        assert read.inputs == checked
        same = await provider.diff("u", type_, id, checked, read.outputs, checked, ())
        assert same.changes is False, same
    for type_ in reversed(made):
        await provider.delete("u", type_, ids[type_], {}, {}, 0)
        assert (await provider.read("u", type_, ids[type_], {}, {})).id == ""


async def test_in_place_changes(provider: DigitalOceanProvider) -> None:
    id, old, outputs = await create(provider, DROPLET, OWNED)
    news = {**OWNED, "name": "w2", "tags": ["stackyard:dep-1", "b"]}
    new = (await provider.check("u", DROPLET, old, news, b"")).inputs
    after = await provider.update("u", DROPLET, id, old, outputs, new, 0, (), preview=False)
    assert after["name"] == "w2"
    assert after["tags"] == ["b", "stackyard:dep-1"]
    assert (await provider.diff("u", DROPLET, id, new, after, new, ())).changes is False


@pytest.mark.parametrize("kind", ["timeout_after_effect", "timeout_before_effect", "error_after_effect"])
async def test_a_lost_answer_leaves_exactly_one(
    provider: DigitalOceanProvider, faults: Faults, sandbox: SandboxApp, kind: str
) -> None:
    faults.add({"kind": kind, "method": "POST", "path": "/v2/droplets", "count": 1})
    id, _, _ = await create(provider, DROPLET, OWNED)
    droplets = [d for account in sandbox.cloud.accounts.values() for d in account.droplets]
    assert list(map(str, droplets)) == [id]


async def test_a_failed_placement_is_said(provider: DigitalOceanProvider, faults: Faults) -> None:
    faults.add({"kind": "placement_failure", "method": "POST", "path": "/v2/droplets", "count": 1})
    with pytest.raises(ProviderError, match="could not place it") as error:
        await create(provider, DROPLET, OWNED)
    assert not isinstance(error.value, PartialFailure)


async def test_a_droplet_that_never_boots_is_kept(provider: DigitalOceanProvider, faults: Faults) -> None:
    faults.add({"kind": "stuck_new", "method": "POST", "path": "/v2/droplets", "count": 1})
    with pytest.raises(PartialFailure) as error:
        await create(provider, DROPLET, OWNED, 60)
    await provider.delete("u", DROPLET, error.value.id, {}, error.value.outputs, 0)


async def test_what_the_cloud_refuses_is_in_its_words(provider: DigitalOceanProvider) -> None:
    with pytest.raises(ProviderError, match="422"):
        await create(provider, DROPLET, {**OWNED, "size": "no-such-size"})


RULE = {"entryProtocol": "http", "entryPort": 80, "targetProtocol": "http", "targetPort": 8080}
FURTHER: list[tuple[str, dict[str, Any]]] = [
    ("vpc:Vpc", {"name": "v", "region": "nyc2", "description": "d", "ipRange": "10.10.10.0/24"}),
    ("volume:Volume", {"name": "vol", "region": "nyc2", "size": 10, "tags": ["stackyard:dep-1"]}),
    ("droplet:Droplet", OWNED),
    ("reservedIp:ReservedIp", {"region": "nyc2"}),
    ("project:Project", {"name": "p", "environment": "Production"}),
    ("domain:Domain", {"name": "example.com"}),
    ("dnsRecord:DnsRecord", {"domain": "example.com", "type": "A", "name": "www", "value": "1.2.3.4", "ttl": 300}),
    ("volumeAttachment:VolumeAttachment", {"dropletId": "{droplet}", "volumeId": "{volume}"}),
    ("reservedIpAssignment:ReservedIpAssignment", {"dropletId": "{droplet}", "ipAddress": "{reservedIp}"}),
    ("projectResources:ProjectResources", {"project": "{project}", "resources": ["do:droplet:{droplet}"]}),
    ("volumeSnapshot:VolumeSnapshot", {"name": "vs", "volumeId": "{volume}"}),
    ("dropletSnapshot:DropletSnapshot", {"name": "ds", "dropletId": "{droplet}"}),
    ("certificate:Certificate", {"name": "c", "type": "lets_encrypt", "domains": ["example.com"]}),
    ("loadBalancer:LoadBalancer", {"name": "lb", "region": "nyc2", "forwardingRules": [RULE]}),
    (
        "kubernetesCluster:KubernetesCluster",
        {
            "name": "k",
            "region": "nyc3",
            "version": "{version}",
            "nodePool": {"name": "first", "size": "s-2vcpu-4gb", "nodeCount": 1},
        },
    ),
    (
        "kubernetesNodePool:KubernetesNodePool",
        {"clusterId": "{kubernetesCluster}", "name": "more", "size": "s-2vcpu-4gb", "nodeCount": 1},
    ),
]


def filled(value: Any, ids: dict[str, str]) -> Any:
    """The inputs with the ids of what was made before."""
    if isinstance(value, dict):
        return {k: filled(v, ids) for k, v in value.items()}
    if isinstance(value, list):
        return [filled(v, ids) for v in value]
    return value.format_map(ids) if isinstance(value, str) else value


async def test_all_further_types_live_and_die(provider: DigitalOceanProvider, clock: Any) -> None:
    versions = await provider.invoke("digitalocean:index/getKubernetesVersions:getKubernetesVersions", {})
    ids, made = {"version": versions["latestVersion"]}, []
    for short, inputs in FURTHER:
        type_ = f"digitalocean:index/{short}"
        id, checked, outputs = await create(provider, type_, filled(inputs, ids))
        ids[short.split(":")[0]] = id
        read = await provider.read("u", type_, id, checked, outputs)
        assert read.inputs == checked
        same = await provider.diff("u", type_, id, checked, read.outputs, checked, ())
        assert same.changes is False, (short, same)
        made.append((type_, id, read))
    for type_, id, read in reversed(made):
        await provider.delete("u", type_, id, read.inputs, read.outputs, 0)


@pytest.mark.parametrize("name", ["getSizes", "getRegions", "getImages", "getAccount", "getDroplets", "getTags"])
async def test_the_sandbox_can_be_looked_up(provider: DigitalOceanProvider, name: str) -> None:
    found = await provider.invoke(f"digitalocean:index/{name}:{name}", {})
    assert found["id"]
