"""Each further type from create to delete against the API in memory, and what it does when an answer is lost."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from engine.deploy.property import UNKNOWN, PropertyMap
from engine.deploy.provider import DiffResult, PartialFailure, ProviderError
from engine.deploy.providers.digitalocean.lookups import functions
from engine.deploy.providers.digitalocean.provider import resource_types
from tests.fakes.digitalocean import FakeDigitalOcean, Fault

README = Path(__file__).parents[4] / "engine/deploy/providers/digitalocean/README.md"
RULE = {"entryProtocol": "http", "entryPort": 80, "targetProtocol": "http", "targetPort": 8080}
POOL = {"name": "first", "size": "s-2vcpu-4gb", "nodeCount": 2}
OWNED = ["stackyard:dep-1"]
MACHINE = {"image": "ubuntu-24-04-x64", "size": "s-1vcpu-1gb", "region": "nyc3", "name": "web"}
INPUTS: dict[str, PropertyMap] = {
    "Vpc": {"name": "v", "region": "nyc3", "description": "d"},
    "Volume": {"name": "vol", "region": "NYC3", "size": 10, "tags": OWNED},
    "ReservedIp": {"region": "nyc3"},
    "Project": {"name": "p", "environment": "staging"},
    "Domain": {"name": "example.com", "ipAddress": "1.2.3.4"},
    "Certificate": {"name": "c", "type": "lets_encrypt", "domains": ["example.com"]},
    "SpacesKey": {"name": "s", "grants": [{"bucket": "b", "permission": "read"}]},
    "LoadBalancer": {"name": "lb", "region": "nyc3", "forwardingRules": [RULE]},
    "KubernetesCluster": {"name": "k", "region": "nyc3", "version": "1.32.5-do.0", "nodePool": POOL, "tags": OWNED},
}
OF_A_PARENT: dict[str, tuple[str, PropertyMap]] = {
    "DnsRecord": ("Domain", {"domain": "{id}", "type": "MX", "name": "@", "value": "mail.example.com.", "priority": 5}),
    "VolumeSnapshot": ("Volume", {"name": "vs", "volumeId": "{id}", "tags": OWNED}),
    "VolumeAttachment": ("Volume", {"volumeId": "{id}", "dropletId": 7}),
    "ReservedIpAssignment": ("ReservedIp", {"ipAddress": "{id}", "dropletId": 7}),
    "ProjectResources": ("Project", {"project": "{id}", "resources": ["do:droplet:7", "do:volume:v"]}),
    "DropletSnapshot": ("Droplet", {"name": "ds", "dropletId": "{id}"}),
    "KubernetesNodePool": (
        "KubernetesCluster",
        {
            "clusterId": "{id}",
            "name": "gpus",
            "size": "gpu-h100x1-80gb",
            "nodeCount": 1,
            "tags": ["a"],
            "labels": {"a": "b"},
            "taints": [{"key": "gpu", "value": "yes", "effect": "NoSchedule"}],
        },
    ),
}
CHANGES: dict[str, PropertyMap] = {
    "Vpc": {"name": "v2"},
    "Volume": {"size": 20, "tags": [*OWNED, "b"]},
    "ReservedIp": {"dropletId": 7},
    "Project": {"resources": ["do:droplet:7"], "isDefault": True},
    "DnsRecord": {"value": "other.example.com."},
    "VolumeSnapshot": {"tags": ["b"]},
    "ProjectResources": {"resources": ["do:volume:v"]},
    "SpacesKey": {"name": "s2", "grants": [{"bucket": "", "permission": "fullaccess"}]},
    "LoadBalancer": {"size": "lb-medium", "forwardingRules": [RULE, {**RULE, "entryPort": 81}]},
    "KubernetesCluster": {"version": "1.33.1-do.0", "nodePool": {**POOL, "nodeCount": 3}, "autoUpgrade": True},
    "KubernetesNodePool": {"nodeCount": 2, "labels": {"a": "c"}},
}
ALL = [*INPUTS, *OF_A_PARENT]
NOT_FOUND_AGAIN = ("ReservedIp", "SpacesKey")
"""One has no name to find it by, the other a secret that is told once."""
IN_SPACES = {"SpacesBucket", "SpacesBucketObject", "SpacesBucketCorsConfiguration", "SpacesBucketPolicy"}
"""Their tests are in `test_digitalocean_spaces.py`."""
TOKENS = {token.rsplit(":", 1)[1]: token for token in resource_types()}


async def inputs_of(desk: Any, kind: str) -> PropertyMap:
    """A program's inputs, with the parent that they need."""
    if kind in INPUTS:
        return INPUTS[kind]
    parent, inputs = OF_A_PARENT[kind]
    made = await desk.create(TOKENS[parent], INPUTS.get(parent, MACHINE))
    return {name: made.id if value == "{id}" else value for name, value in inputs.items()}


async def diff(desk: Any, kind: str, created: Any, old: PropertyMap, new: PropertyMap) -> DiffResult:
    found: DiffResult = await desk.provider.diff("u", TOKENS[kind], created.id, old, created.outputs, new, ())
    return found


def test_every_further_type_is_covered_here() -> None:
    assert {*ALL, *IN_SPACES, "Droplet", "SshKey", "Firewall", "Tag"} == set(TOKENS)


def test_the_support_table_names_every_type_and_function() -> None:
    table = README.read_text()
    rows = {row.split("|")[1].strip() for row in table.splitlines() if row.startswith("| ") and "recorded" in row}
    assert rows == set(TOKENS)
    for token in functions():
        name = token.rsplit(":", 1)[1]
        assert re.search(rf"\b{name}\b|\b{name.removesuffix('s')}\(s\)", table), name


@pytest.mark.parametrize("busy", [0, 3])
@pytest.mark.parametrize("kind", ALL)
async def test_it_is_made_read_changed_and_deleted(desk: Any, cloud: FakeDigitalOcean, kind: str, busy: int) -> None:
    cloud.more.busy_polls = busy
    type_, program = TOKENS[kind], await inputs_of(desk, kind)
    inputs = await desk.check(type_, **program)
    created = await desk.create(type_, program)
    read = await desk.provider.read("u", type_, created.id, inputs, created.outputs)
    assert read.inputs == inputs
    assert (await diff(desk, kind, read, inputs, inputs)).changes is False
    if kind in CHANGES:
        new = await desk.check(type_, inputs, **{**program, **CHANGES[kind]})
        found = await diff(desk, kind, read, inputs, new)
        assert set(found.changed_keys) == set(CHANGES[kind])
        assert not found.replace_keys
        outputs = await desk.provider.update("u", type_, read.id, inputs, read.outputs, new, 0, (), preview=False)
        read = await desk.provider.read("u", type_, read.id, new, outputs)
        assert read.inputs == new
        assert (await diff(desk, kind, read, new, new)).changes is False
    await desk.provider.delete("u", type_, read.id, read.inputs, read.outputs, 0)
    assert (await desk.provider.read("u", type_, read.id, read.inputs, read.outputs)).id == "" or (
        kind == "ProjectResources"
    )


@pytest.mark.parametrize("kind", [kind for kind in ALL if kind not in NOT_FOUND_AGAIN])
async def test_a_pending_create_is_found_by_what_the_program_said(
    desk: Any, cloud: FakeDigitalOcean, kind: str
) -> None:
    type_, program = TOKENS[kind], await inputs_of(desk, kind)
    inputs = await desk.check(type_, **program)
    assert await desk.provider.lookup("u", type_, inputs) is None
    created = await desk.create(type_, program)
    found = await desk.provider.lookup("u", type_, inputs)
    read = await desk.provider.read("u", type_, found, inputs, {})
    assert {**read.outputs, "id": ""} == {**created.outputs, "id": ""}


@pytest.mark.parametrize("status", [0, 500])
@pytest.mark.parametrize("kind", [kind for kind in ALL if kind not in NOT_FOUND_AGAIN])
async def test_a_lost_answer_makes_exactly_one(desk: Any, cloud: FakeDigitalOcean, kind: str, status: int) -> None:
    type_, program = TOKENS[kind], await inputs_of(desk, kind)
    before = len(cloud.seen("POST"))
    cloud.faults = [Fault("POST", "/v2/", status, after_effect=True)]
    created = await desk.create(type_, program)
    assert created.id
    asked = [r.path for r in cloud.seen("POST")[before:]]
    if kind not in ("VolumeAttachment", "ReservedIpAssignment", "ProjectResources"):  # asking these twice does no harm
        assert len(asked) == 1
    assert (await desk.provider.read("u", type_, created.id, {**program}, created.outputs)).id == created.id


async def test_a_lost_spaces_key_is_left_to_the_user(desk: Any, cloud: FakeDigitalOcean) -> None:
    cloud.faults = [Fault("POST", "/v2/spaces/keys", 0, after_effect=True)]
    with pytest.raises(ProviderError, match=r"its secret is lost: delete it \(key-\d+\)"):
        await desk.create(TOKENS["SpacesKey"], INPUTS["SpacesKey"])
    assert len(cloud.seen("POST")) == 1
    with pytest.raises(ProviderError, match="cannot be imported"):
        await desk.provider.read("u", TOKENS["SpacesKey"], "key-1", {}, {})


async def test_a_lost_reserved_ip_is_left_to_the_user(desk: Any, cloud: FakeDigitalOcean) -> None:
    cloud.faults = [Fault("POST", "/v2/reserved_ips", 0, after_effect=True)]
    with pytest.raises(ProviderError, match=r"unassigned reserved IPs \(45.55.96.*import or release"):
        await desk.create(TOKENS["ReservedIp"], INPUTS["ReservedIp"])
    assert len(cloud.seen("POST")) == 1
    with pytest.raises(ProviderError, match="no name to find it by"):
        await desk.provider.lookup("u", TOKENS["ReservedIp"], INPUTS["ReservedIp"])


@pytest.mark.parametrize("kind", ["Volume", "KubernetesCluster"])
async def test_a_namesake_without_an_owners_tag_is_not_adopted(desk: Any, cloud: FakeDigitalOcean, kind: str) -> None:
    cloud.faults = [Fault("POST", "/v2/", 500, after_effect=True)]
    with pytest.raises(ProviderError, match="delete or import it"):
        await desk.create(TOKENS[kind], {**INPUTS[kind], "tags": []})


async def test_a_busy_droplet_is_waited_for(desk: Any, cloud: FakeDigitalOcean, clock: Any) -> None:
    program = await inputs_of(desk, "VolumeAttachment")
    words = "Droplet already has a pending event."
    cloud.faults = [Fault("POST", "/v2/volumes/", 422, times=3, message=words)]
    await desk.create(TOKENS["VolumeAttachment"], program)
    assert clock.sleeps[:3] == pytest.approx([0.01, 0.025, 0.0625])


async def test_members_of_a_vpc_are_waited_for(desk: Any, cloud: FakeDigitalOcean) -> None:
    created = await desk.create(TOKENS["Vpc"], INPUTS["Vpc"])
    cloud.faults = [Fault("DELETE", "/v2/vpcs/", 403, times=2)]
    await desk.provider.delete("u", TOKENS["Vpc"], created.id, {}, created.outputs, 0)
    assert cloud.more.members["vpcs"] == {}
    created = await desk.create(TOKENS["Vpc"], INPUTS["Vpc"])
    cloud.faults = [Fault("DELETE", "/v2/vpcs/", 403, times=0)]
    with pytest.raises(ProviderError, match=r"Error deleting VPC: .*403"):
        await desk.provider.delete("u", TOKENS["Vpc"], created.id, {}, created.outputs, 0)


@pytest.mark.parametrize("kind", ["Certificate", "LoadBalancer", "KubernetesCluster"])
async def test_what_is_not_ready_in_time_stays_in_state(desk: Any, cloud: FakeDigitalOcean, kind: str) -> None:
    cloud.more.busy_polls = 1000
    with pytest.raises(PartialFailure) as error:
        await desk.create(TOKENS[kind], INPUTS[kind], 60)
    assert error.value.id
    cloud.more.busy_polls = 0
    await desk.provider.delete("u", TOKENS[kind], error.value.id, {}, error.value.outputs, 0)


@pytest.mark.parametrize("kind", ["DnsRecord", "ReservedIpAssignment", "KubernetesNodePool", "Volume", "Project"])
async def test_an_import_says_what_is_there(desk: Any, cloud: FakeDigitalOcean, kind: str) -> None:
    type_, program = TOKENS[kind], await inputs_of(desk, kind)
    created = await desk.create(type_, program)
    id = {
        "DnsRecord": f"example.com,{created.id}",
        "ReservedIpAssignment": f"{program.get('ipAddress')},7",
    }.get(kind, created.id)
    read = await desk.provider.read("u", type_, id, {}, {})
    again = await desk.check(type_, read.inputs, **program)
    assert read.id
    assert (await diff(desk, kind, read, read.inputs, again)).changes is False


async def test_an_import_by_a_wrong_id_says_the_right_form(desk: Any) -> None:
    with pytest.raises(ProviderError, match="import a record by `domain,id`"):
        await desk.provider.read("u", TOKENS["DnsRecord"], "28448434", {}, {})


@pytest.mark.parametrize(
    ("kind", "wrong", "property_", "words"),
    [
        ("Vpc", {"ipRange": "10.0.0.1"}, "ipRange", "CIDR"),
        ("Vpc", {"description": "x" * 256}, "description", "255"),
        ("Volume", {"size": 0}, "size", "at least 1"),
        ("Volume", {"initialFilesystemType": "ntfs"}, "initialFilesystemType", "ext4, xfs"),
        ("Project", {"environment": "prod"}, "environment", "Development"),
        ("Domain", {"name": ""}, "name", "empty"),
        ("Certificate", {"type": "custom"}, "privateKey", "required when type is `custom`"),
        ("LoadBalancer", {"region": None}, "region", "missing 'region'"),
        ("LoadBalancer", {"dropletTag": "a", "dropletIds": [1]}, "dropletTag", "conflicts with dropletIds"),
        ("LoadBalancer", {"healthcheck": {"protocol": "http", "port": 80}}, "healthcheck.path", "required"),
        ("LoadBalancer", {"forwardingRules": [{**RULE, "entryPort": 0}]}, "forwardingRules[0].entryPort", "between 1"),
        ("KubernetesCluster", {"nodePool": {"name": "x"}}, "nodePool.size", "missing required"),
        ("KubernetesCluster", {"nfsCsiPlugin": {"enabled": True}}, "nfsCsiPlugin", "not an input"),
    ],
)
async def test_wrong_inputs_are_refused_by_name(
    desk: Any, kind: str, wrong: PropertyMap, property_: str, words: str
) -> None:
    news = {k: v for k, v in {**INPUTS[kind], **wrong}.items() if v is not None}
    result = await desk.provider.check(desk.urn(TOKENS[kind]), TOKENS[kind], {}, news, b"")
    assert property_ in [f.property for f in result.failures]
    assert words in next(f.reason for f in result.failures if f.property == property_)


async def test_an_mx_record_needs_a_priority(desk: Any) -> None:
    inputs = {"domain": "d", "type": "MX", "name": "@", "value": "m."}
    result = await desk.provider.check("u::x", TOKENS["DnsRecord"], {}, inputs, b"")
    assert [f.property for f in result.failures] == ["priority"]
    later = await desk.provider.check("u::x", TOKENS["DnsRecord"], {}, {**inputs, "type": UNKNOWN}, b"")
    assert not later.failures


@pytest.mark.parametrize(("version", "replaces"), [("1.31.9-do.0", True), ("1.33.1-do.0", False)])
async def test_a_cluster_is_replaced_by_an_older_version(desk: Any, version: str, replaces: bool) -> None:
    created = await desk.create(TOKENS["KubernetesCluster"], INPUTS["KubernetesCluster"])
    old = await desk.check(TOKENS["KubernetesCluster"], **INPUTS["KubernetesCluster"])
    new = await desk.check(TOKENS["KubernetesCluster"], **{**INPUTS["KubernetesCluster"], "version": version})
    found = await diff(desk, "KubernetesCluster", created, old, new)
    assert found.replace_keys == (["version"] if replaces else [])


async def test_a_full_record_name_and_a_size_by_name_are_no_changes(desk: Any) -> None:
    program = await inputs_of(desk, "DnsRecord")
    created = await desk.create(TOKENS["DnsRecord"], {**program, "name": "www"})
    full = await desk.check(TOKENS["DnsRecord"], **{**program, "name": "www.example.com."})
    assert (await diff(desk, "DnsRecord", created, full, full)).changes is False
    lb = await desk.create(TOKENS["LoadBalancer"], INPUTS["LoadBalancer"])
    small = await desk.check(TOKENS["LoadBalancer"], **INPUTS["LoadBalancer"], size="lb-small")
    assert (await diff(desk, "LoadBalancer", lb, small, small)).changes is False


async def test_credentials_are_kept_while_they_are_good(desk: Any, cloud: FakeDigitalOcean, clock: Any) -> None:
    type_ = TOKENS["KubernetesCluster"]
    created = await desk.create(type_, INPUTS["KubernetesCluster"])
    inputs = await desk.check(type_, **INPUTS["KubernetesCluster"])
    assert "server: https://k8s.test" in created.outputs["kubeConfigs"][0]["rawConfig"]
    asked = len([r for r in cloud.requests if r.path.endswith("/credentials")])
    await desk.provider.read("u", type_, created.id, inputs, created.outputs)
    assert len([r for r in cloud.requests if r.path.endswith("/credentials")]) == asked
    clock.advance(8 * 24 * 3600)
    await desk.provider.read("u", type_, created.id, inputs, created.outputs)
    assert len([r for r in cloud.requests if r.path.endswith("/credentials")]) == asked + 1


async def test_a_custom_certificate_keeps_only_hashes(desk: Any, cloud: FakeDigitalOcean) -> None:
    program = {"name": "c", "privateKey": "key", "leafCertificate": "leaf"}
    created = await desk.create(TOKENS["Certificate"], program)
    assert created.outputs["privateKey"] == "a62f2225bf70bfaccbc7f1ef2a397836717377de"
    assert cloud.seen("POST")[0].body["private_key"] == "key"
    same = await desk.check(TOKENS["Certificate"], **program)
    assert (await diff(desk, "Certificate", created, same, same)).changes is False


async def test_a_project_without_an_environment_settles(desk: Any, cloud: FakeDigitalOcean) -> None:
    """Some clouds choose one: that is neither a change nor sent back as an empty one."""
    type_ = TOKENS["Project"]
    created = await desk.create(type_, {"name": "p"})
    cloud.more.members["projects"][created.id]["environment"] = "Development"
    old, new = await desk.check(type_, name="p"), await desk.check(type_, name="p2")
    read = await desk.provider.read("u", type_, created.id, old, created.outputs)
    assert (await diff(desk, "Project", read, old, old)).changes is False
    await desk.provider.update("u", type_, created.id, old, read.outputs, new, 0, (), preview=False)
    assert "environment" not in cloud.seen("PATCH")[0].body
