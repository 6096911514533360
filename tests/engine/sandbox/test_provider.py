"""Our own provider's types beside Droplets live and die in the sandbox: two readings of one document meet."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from engine.deploy.providers.digitalocean import DigitalOceanProvider
from engine.deploy.providers.digitalocean.provider import resource_types
from engine.model.budget import Unlimited
from engine.sandbox.app import SandboxApp
from engine.sandbox.cloud import Cloud
from engine.sandbox.kubernetes import VERSIONS
from engine.sandbox.spaces.access import KeyPair
from engine.sandbox.spaces.service import Spaces

TOKENS = {token.rsplit(":", 1)[1]: token for token in resource_types()}
RULE = {"entryProtocol": "http", "entryPort": 80, "targetProtocol": "http", "targetPort": 8080}
POOL = {"name": "first", "size": "s-2vcpu-4gb", "nodeCount": 2}
MACHINE = {"image": "ubuntu-24-04-x64", "size": "s-1vcpu-1gb", "region": "nyc3", "name": "web"}
PARENTS: dict[str, dict[str, Any]] = {
    "Droplet": MACHINE,
    "Volume": {"name": "vol", "region": "nyc3", "size": 10},
    "ReservedIp": {"region": "nyc3"},
    "Project": {"name": "p", "environment": "staging"},
    "Domain": {"name": "example.com"},
    "KubernetesCluster": {"name": "k", "region": "nyc3", "version": VERSIONS[0], "nodePool": POOL},
    "SpacesBucket": {"name": "box"},
}
IN_BUCKET = {"region": "nyc3", "bucket": "{SpacesBucket}"}
ORIGIN = {"allowedMethods": ["GET"], "allowedOrigins": ["*"]}
STATEMENT = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::box/*"}
POLICY = json.dumps({"Version": "2012-10-17", "Statement": [STATEMENT]})
TYPES: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "Vpc": ((), {"name": "v", "region": "nyc3", "description": "d"}),
    "LoadBalancer": ((), {"name": "lb", "region": "nyc3", "forwardingRules": [RULE]}),
    "Certificate": (("Domain",), {"name": "c", "type": "lets_encrypt", "domains": ["www.example.com"]}),
    "DnsRecord": (("Domain",), {"domain": "{Domain}", "type": "CNAME", "name": "www", "value": "a.example.com."}),
    "VolumeSnapshot": (("Volume",), {"name": "vs", "volumeId": "{Volume}"}),
    "VolumeAttachment": (("Volume", "Droplet"), {"volumeId": "{Volume}", "dropletId": "{Droplet}"}),
    "ReservedIpAssignment": (("ReservedIp", "Droplet"), {"ipAddress": "{ReservedIp}", "dropletId": "{Droplet}"}),
    "ProjectResources": (("Project", "Volume"), {"project": "{Project}", "resources": ["do:volume:{Volume}"]}),
    "DropletSnapshot": (("Droplet",), {"name": "ds", "dropletId": "{Droplet}"}),
    "KubernetesNodePool": (("KubernetesCluster",), {"clusterId": "{KubernetesCluster}", **POOL, "name": "more"}),
    "SpacesKey": ((), {"name": "s", "grants": [{"bucket": "box", "permission": "read"}]}),
    "SpacesBucketObject": (("SpacesBucket",), {**IN_BUCKET, "key": "k", "content": "x"}),
    "SpacesBucketCorsConfiguration": (("SpacesBucket",), {**IN_BUCKET, "corsRules": [ORIGIN]}),
    "SpacesBucketPolicy": (("SpacesBucket",), {**IN_BUCKET, "policy": POLICY}),
    **{name: ((), inputs) for name, inputs in PARENTS.items() if name != "Droplet"},
}


@pytest.fixture
async def provider(app: SandboxApp, clock, tmp_path):
    app.spaces = Spaces(app.cloud, app.faults, tmp_path, KeyPair("KEY", "secret", "me"))
    provider = DigitalOceanProvider(
        environment={
            "DIGITALOCEAN_TOKEN": "token-a", "SPACES_ACCESS_KEY_ID": "KEY", "SPACES_SECRET_ACCESS_KEY": "secret",
            "SPACES_ENDPOINT_URL": "http://do.test/spaces/{{.Region}}",
        }, budget=Unlimited(), clock=clock,
        api_endpoint="http://do.test", transport=httpx.ASGITransport(app),
    )  # fmt: skip
    await provider.configure({})
    yield provider
    await provider.close()
    app.spaces.close()


def test_every_type_is_here():
    assert set(TYPES) | {"Droplet", "SshKey", "Firewall", "Tag"} == set(TOKENS)


@pytest.mark.parametrize("action_seconds", [0, 4])
@pytest.mark.parametrize("kind", TYPES)
async def test_type_is_made_read_and_deleted(provider, cloud: Cloud, kind: str, action_seconds: float):
    cloud.timings.action_seconds = action_seconds
    parents, inputs = TYPES[kind]
    ids = {parent: (await make(provider, parent, PARENTS[parent], {}))[1].id for parent in parents}
    before = len(cloud.journal.entries)
    checked, made = await make(provider, kind, inputs, ids)
    assert len(cloud.journal.entries) > before or kind == "ProjectResources"
    read = await provider.read("u", TOKENS[kind], made.id, checked, made.outputs)
    assert (read.id, read.inputs) == (made.id, checked)
    await provider.delete("u", TOKENS[kind], made.id, read.inputs, read.outputs, 0)
    if kind != "ProjectResources":  # its id is the project's
        assert (await provider.read("u", TOKENS[kind], made.id, read.inputs, read.outputs)).id == ""


async def make(provider, kind, inputs, ids):
    """Check and create, with the parents' ids filled in."""
    filled = {name: fill(value, ids) for name, value in inputs.items()}
    checked = await provider.check(f"urn::{kind}", TOKENS[kind], {}, filled, b"seed")
    assert not checked.failures
    return checked.inputs, await provider.create("u", TOKENS[kind], checked.inputs, 0, preview=False)


def fill(value, ids):
    if isinstance(value, list):
        return [fill(v, ids) for v in value]
    if value == "{Droplet}":
        return int(ids["Droplet"])
    for parent, id in ids.items():
        value = value.replace(f"{{{parent}}}", str(id)) if isinstance(value, str) else value
    return value
