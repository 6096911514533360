"""Check and preview: names, coercion, refusals, and what is unknown before an update."""

from __future__ import annotations

from typing import Any

import pytest

from engine.deploy.property import UNKNOWN, Secret
from engine.deploy.provider import ProviderError
from engine.deploy.providers.digitalocean import DigitalOceanProvider, configuration
from engine.model.budget import Unlimited
from tests.fakes.clock import FakeClock
from tests.fakes.digitalocean import FakeDigitalOcean

DROPLET = "digitalocean:index/droplet:Droplet"
FIREWALL = "digitalocean:index/firewall:Firewall"
MACHINE = {"image": "ubuntu-24-04-x64", "size": "s-1vcpu-1gb", "region": "nyc3"}


async def test_a_left_out_name_is_made_from_the_seed_and_kept(desk: Any) -> None:
    first = await desk.check(DROPLET, **MACHINE)
    assert first["__defaults"] == ["name", "resizeDisk"]
    stem, digits = first["name"].split("-")
    assert stem == "web"
    assert len(digits) == 7
    assert int(digits, 16) >= 0
    assert (await desk.check(DROPLET, **MACHINE))["name"] == first["name"]
    other_seed = await desk.provider.check(desk.urn(DROPLET), DROPLET, first, MACHINE, b"another")
    assert other_seed.inputs["name"] == first["name"], "an update keeps the name"
    replaced = await desk.provider.check(desk.urn(DROPLET), DROPLET, {}, MACHINE, b"another")
    assert replaced.inputs["name"] != first["name"]


async def test_a_chosen_name_is_not_kept_when_it_is_left_out_later(desk: Any) -> None:
    chosen = await desk.check(DROPLET, **MACHINE, name="mine")
    assert (await desk.check(DROPLET, chosen, **MACHINE))["name"] != "mine"


@pytest.mark.parametrize(
    ("wrong", "property_", "words"),
    [
        ({"image": None}, "image", "missing required"),
        ({"size": ""}, "size", "must not be empty"),
        ({"imagee": "x"}, "imagee", "not an input"),
        ({"ipv6": "perhaps"}, "ipv6", "expected a bool"),
        ({"tags": ["no spaces"]}, "tags[0]", "may contain letters"),
        ({"tags": "a"}, "tags", "must be a list"),
        ({"status": "active"}, "status", "not an input"),
        ({"backups": True, "backupPolicy": {"plan": "hourly"}}, "backupPolicy.plan", "daily, weekly"),
        ({"backupPolicy": {"plan": "daily"}}, "backupPolicy", "set backups to true"),
    ],
)
async def test_wrong_inputs_are_refused_by_name(desk: Any, wrong: dict[str, Any], property_: str, words: str) -> None:
    result = await desk.provider.check(desk.urn(DROPLET), DROPLET, {}, {**MACHINE, **wrong}, b"")
    assert [f.property for f in result.failures] == [property_]
    assert words in result.failures[0].reason


async def test_values_are_coerced_to_the_tables_types(desk: Any) -> None:
    machine = await desk.check(DROPLET, **MACHINE, ipv6="true", sshKeys=[512189.0])
    assert machine["ipv6"] is True
    assert machine["sshKeys"] == ["512189"]
    rules = [{"protocol": "tcp", "portRange": 22.0, "sourceDropletIds": ["5", 6.0]}]
    firewall = await desk.check(FIREWALL, dropletIds=["3164444"], inboundRules=rules)
    assert firewall["dropletIds"] == [3164444]
    assert firewall["inboundRules"] == [
        {"__defaults": [], "protocol": "tcp", "portRange": "22", "sourceDropletIds": [5, 6]}
    ]


async def test_one_secret_element_hides_the_whole_list(desk: Any) -> None:
    checked = await desk.check(DROPLET, **MACHINE, tags=["a", Secret("b")])
    assert checked["tags"] == Secret(["a", "b"])


async def test_a_preview_knows_what_the_program_said_and_asks_nothing(desk: Any, cloud: FakeDigitalOcean) -> None:
    inputs = await desk.check(DROPLET, **MACHINE, name="w", userData=Secret("u"))
    planned = await desk.provider.create(desk.urn(DROPLET), DROPLET, inputs, 0, preview=True)
    assert planned.outputs["name"] == "w"
    assert planned.outputs["ipv4Address"] is UNKNOWN
    assert planned.outputs["monitoring"] is False
    assert isinstance(planned.outputs["userData"], Secret)
    assert cloud.requests == []


async def test_a_preview_of_an_update_keeps_what_stays(desk: Any, cloud: FakeDigitalOcean) -> None:
    created = await desk.create(DROPLET, {**MACHINE, "name": "w"})
    asked = len(cloud.requests)
    old = await desk.check(DROPLET, **MACHINE, name="w")
    new = await desk.check(DROPLET, **MACHINE, name="w2", ipv6=True)
    planned = await desk.provider.update("u", DROPLET, created.id, old, created.outputs, new, 0, (), preview=True)
    assert planned["name"] == "w2"
    assert planned["ipv4Address"] == "104.131.186.44"
    assert planned["ipv6Address"] is UNKNOWN
    assert len(cloud.requests) == asked


async def test_types_and_functions_it_does_not_have_are_refused_by_name(desk: Any) -> None:
    with pytest.raises(ProviderError, match=r"digitalocean:index/cdn:Cdn is not provided.*official CLI"):
        await desk.provider.check("u", "digitalocean:index/cdn:Cdn", {}, {}, b"")
    with pytest.raises(ProviderError, match=r"getApp is not provided.*getSizes.*official CLI"):
        await desk.provider.invoke("digitalocean:index/getApp:getApp", {})


async def test_without_a_token_the_error_says_where_to_put_one(cloud: FakeDigitalOcean) -> None:
    provider = DigitalOceanProvider(environment={}, budget=Unlimited(), clock=FakeClock(), transport=cloud.transport())
    await provider.configure({})
    with pytest.raises(ProviderError, match="DIGITALOCEAN_TOKEN"):
        await provider.read("u", DROPLET, "1", {}, {})


@pytest.mark.parametrize(
    ("inputs", "environment", "host"),
    [
        ({"apiEndpoint": "http://inputs"}, {"DIGITALOCEAN_API_URL": "http://environment"}, "inputs"),
        ({}, {"DIGITALOCEAN_API_URL": "http://environment"}, "environment"),
        ({}, {}, "api.digitalocean.com"),
    ],
)
async def test_where_requests_go(
    cloud: FakeDigitalOcean, inputs: dict[str, Any], environment: dict[str, str], host: str
) -> None:
    provider = DigitalOceanProvider(
        environment={**environment, "DIGITALOCEAN_TOKEN": "env"},
        budget=Unlimited(),
        clock=FakeClock(),
        transport=cloud.transport(),
    )
    await provider.configure(inputs)
    assert (await provider.read("u", DROPLET, "1", {}, {})).id == ""
    headers = cloud.requests[0].headers
    assert headers["host"] == host
    assert headers["authorization"] == "Bearer env"
    assert headers["user-agent"].startswith("stackyard/")
    await provider.close()


async def test_a_changed_provider_setting_replaces_nothing(desk: Any) -> None:
    found = await desk.provider.diff_config(
        "u", {"apiEndpoint": "a", "token": Secret("t"), "version": "1"}, {"apiEndpoint": "b", "token": "t"}
    )
    assert found.changed_keys == ("apiEndpoint",)
    assert not found.replace_keys
    same = await desk.provider.diff_config("u", {"token": Secret("t"), "__internal": {}}, {"token": Secret("t")})
    assert same.changes is False


@pytest.mark.parametrize(
    ("inputs", "configured", "environment", "found"),
    [
        ({}, "", {}, "https://api.digitalocean.com"),
        ({}, "https://api.digitalocean.com", {"DIGITALOCEAN_API_URL": "http://env"}, "http://env"),
        ({}, "http://set", {"DIGITALOCEAN_API_URL": "http://env"}, "http://set"),
        ({"apiEndpoint": "http://given"}, "http://set", {}, "http://given"),
    ],
)
def test_whose_address_counts(inputs: Any, configured: str, environment: dict[str, str], found: str) -> None:
    assert configuration.endpoint(inputs, configured, environment) == found
