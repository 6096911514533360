"""Every recorded single change of a property: operation, keys and detailed diff as the official provider gives them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.deploy.property import UNKNOWN, PropertyMap, Secret
from engine.deploy.provider import DiffResult
from tests.fakes.digitalocean import FakeDigitalOcean

RULES: list[dict[str, Any]] = json.loads((Path(__file__).parent / "golden" / "digitalocean_rules.json").read_text())
RECORDED = Path(__file__).parents[5] / "shared" / "reference" / "pulumi" / "recordings" / "rules-do.json"
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl a@b"
BASES: dict[str, PropertyMap] = {
    "sshKey:SshKey": {"name": "k", "publicKey": KEY},
    "tag:Tag": {"name": "t"},
    "droplet:Droplet": {
        "name": "w",
        "image": "ubuntu-24-04-x64",
        "region": "nyc3",
        "size": "s-1vcpu-1gb",
        "monitoring": True,
        "userData": "u",
        "tags": ["a"],
        "sshKeys": ["1"],
        "vpcUuid": "760e09ef-dc84-11e8-981e-3cfdfeaae000",
    },
    "vpc:Vpc": {"name": "v", "region": "nyc3", "ipRange": "10.10.10.0/24", "description": "d"},
    "volume:Volume": {
        "name": "vol",
        "region": "nyc3",
        "size": 10,
        "description": "d",
        "initialFilesystemType": "ext4",
        "tags": ["a"],
    },
    "reservedIp:ReservedIp": {"region": "nyc3"},
    "project:Project": {"name": "p", "purpose": "Service or API", "environment": "Production"},
    "domain:Domain": {"name": "example.org"},
    "dnsRecord:DnsRecord": {"domain": "example.org", "type": "A", "name": "www", "value": "1.2.3.4", "ttl": 300},
    "firewall:Firewall": {
        "name": "fw",
        "tags": ["a"],
        "inboundRules": [{"protocol": "tcp", "portRange": "22", "sourceAddresses": ["0.0.0.0/0"]}],
    },
}


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


async def planned(desk: Any, type_: str, before: PropertyMap, after: PropertyMap) -> DiffResult:
    """The diff of a program's change, from a state that a create wrote."""
    created = await desk.create(type_, before)
    old = await desk.check(type_, **before)
    new = await desk.check(type_, old, **after)
    found: DiffResult = await desk.provider.diff("u", type_, created.id, old, created.outputs, new, ())
    return found


@pytest.mark.parametrize(
    "rule", RULES, ids=[f"{r['type'].split(':')[1]}-{r['property']}-{i}" for i, r in enumerate(RULES)]
)
async def test_a_changed_property_has_its_recorded_effect(desk: Any, rule: dict[str, Any]) -> None:
    name, base = camel(rule["property"]), BASES[rule["type"]]
    assert rule["from"] == base.get(name), "the recording started from another program"
    after = {k: v for k, v in base.items() if k != name}
    if rule["to"] != "(removed)":
        after[name] = rule["to"]
    found = await planned(desk, f"digitalocean:index/{rule['type']}", base, after)
    replaced = "replace" in rule["ops"]
    assert found.changes is bool(rule["ops"])
    assert list(found.changed_keys) == rule["diffs"]
    assert list(found.replace_keys) == rule["keys"]
    assert {path: d.kind.value for path, d in found.detailed_diff.items()} == rule["detailed_diff"]
    assert found.delete_before_replace is (replaced and rule["ops"][0] == "delete-replaced")


def test_the_rules_here_are_those_recorded() -> None:
    if not RECORDED.exists():
        pytest.skip("the recordings of the official engine are not beside this checkout (../shared/reference)")
    recorded = json.loads(RECORDED.read_text())
    for ours, official in zip(RULES, recorded, strict=True):
        assert [ours["from"], ours["to"]] == [official["from"], official["to"]]
        assert ours["ops"] == [op["op"] for op in official["ops"]]


async def test_a_made_up_name_is_replaced_by_creating_first(desk: Any) -> None:
    base = {k: v for k, v in BASES["droplet:Droplet"].items() if k != "name"}
    found = await planned(desk, "digitalocean:index/droplet:Droplet", base, {**base, "image": "debian-12-x64"})
    assert found.replace_keys == ["image"]
    assert not found.delete_before_replace


async def test_turning_ipv6_off_replaces(desk: Any) -> None:
    base = BASES["droplet:Droplet"]
    found = await planned(desk, "digitalocean:index/droplet:Droplet", {**base, "ipv6": True}, base)
    assert found.replace_keys == ["ipv6"]
    assert found.detailed_diff["ipv6"].kind.value == "update-replace"


async def test_an_unknown_input_is_a_change(desk: Any) -> None:
    base = BASES["droplet:Droplet"]
    created = await desk.create("digitalocean:index/droplet:Droplet", base)
    new = await desk.check("digitalocean:index/droplet:Droplet", **{**base, "vpcUuid": UNKNOWN, "tags": [UNKNOWN]})
    found = await desk.provider.diff(
        "u", "digitalocean:index/droplet:Droplet", created.id, base, created.outputs, new, ()
    )
    assert found.replace_keys == ["vpcUuid"]
    assert set(found.changed_keys) == {"tags", "vpcUuid"}


async def test_secret_inputs_compare_by_what_they_hide(desk: Any) -> None:
    base = {**BASES["droplet:Droplet"], "userData": Secret("u")}
    created = await desk.create("digitalocean:index/droplet:Droplet", base)
    assert isinstance(created.outputs["userData"], Secret)
    new = await desk.check("digitalocean:index/droplet:Droplet", **{**base, "userData": "u"})
    found = await desk.provider.diff(
        "u", "digitalocean:index/droplet:Droplet", created.id, base, created.outputs, new, ()
    )
    assert found.changes is False


async def test_ignored_changes_are_not_seen(desk: Any) -> None:
    base = BASES["droplet:Droplet"]
    created = await desk.create("digitalocean:index/droplet:Droplet", base)
    new = await desk.check("digitalocean:index/droplet:Droplet", **{**base, "userData": "other", "name": "w2"})
    found = await desk.provider.diff(
        "u", "digitalocean:index/droplet:Droplet", created.id, base, created.outputs, new, ["userData"]
    )
    assert found.changed_keys == ["name"]


async def test_an_import_asks_for_what_is_there(desk: Any, cloud: FakeDigitalOcean) -> None:
    type_ = "digitalocean:index/droplet:Droplet"
    base = {k: v for k, v in BASES["droplet:Droplet"].items() if k not in ("userData", "sshKeys")}
    created = await desk.create(type_, base)
    read = await desk.provider.read("u", type_, created.id, {}, {})
    assert read.inputs["__defaults"] == []
    assert {k: read.inputs[k] for k in base} == base
    again = await desk.check(type_, read.inputs, **base)
    assert (await desk.provider.diff("u", type_, read.id, read.inputs, read.outputs, again, ())).changes is False


async def test_drift_shows_in_refreshed_inputs(desk: Any, cloud: FakeDigitalOcean) -> None:
    type_, base = "digitalocean:index/droplet:Droplet", BASES["droplet:Droplet"]
    created = await desk.create(type_, base)
    inputs = await desk.check(type_, **base)
    cloud.droplets[int(created.id)].update(name="other", tags=[])
    read = await desk.provider.read("u", type_, created.id, inputs, created.outputs)
    assert read.inputs["name"] == "other"
    assert "tags" not in read.inputs
    assert read.inputs["userData"] == "u"
    found = await desk.provider.diff("u", type_, read.id, read.inputs, read.outputs, inputs, ())
    assert found.changed_keys == ["name", "tags"]
