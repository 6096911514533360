"""Every recorded single change of a property: operation, keys and detailed diff as the official provider gives them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from engine.deploy.property import PropertyMap, Secret
from engine.deploy.provider import CreateResult
from engine.deploy.providers.docker import DockerProvider
from tests.fakes.clock import FakeClock

HERE = Path(__file__).parent
RULES: list[dict[str, Any]] = json.loads((HERE / "golden" / "docker_rules.json").read_text())
RECORDED = Path(__file__).parents[6] / "shared" / "reference" / "pulumi" / "recordings" / "rules-docker.json"
TYPES = {
    "web": "docker:index/container:Container", "net": "docker:index/network:Network",
    "vol": "docker:index/volume:Volume", "tag": "docker:index/tag:Tag",
    "img": "docker:index/remoteImage:RemoteImage",
}  # fmt: skip
BASES: dict[str, PropertyMap] = {
    "web": {
        "image": "lab/busybox:1", "name": "g2r-web", "command": ["/bin/sleep", "1000"], "envs": ["A=1", "B=2"],
        "cpuShares": 512, "restart": "no",
    },
    "net": {"name": "g2rnet", "driver": "bridge"},
    "vol": {"name": "g2rvol"},
    "tag": {"sourceImage": "lab/busybox:1", "targetImage": "lab/busybox:g2r"},
    "img": {"name": "lab/busybox:1", "keepLocally": True},
}  # fmt: skip
LABELS = {"web": "worker", "net": "net-auto", "vol": "vol-auto", "tag": "tag", "img": "img"}


def camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def made_from(recorded: dict[str, Any], resource: str) -> CreateResult:
    """What a create of the base program wrote: a recorded state of the type, with the program's own values."""
    state = recorded["up"][LABELS[resource]]
    other = {"networksAdvanced": []} if resource == "web" else {}
    return CreateResult(state["id"], {**state["outputs"], **other, **BASES[resource]})


@pytest.mark.parametrize("rule", RULES, ids=[f"{r['resource']}-{r['property']}-{i}" for i, r in enumerate(RULES)])
async def test_a_changed_property_has_its_recorded_effect(recorded: dict[str, Any], rule: dict[str, Any]) -> None:
    provider = DockerProvider(environment={}, clock=FakeClock())
    type_, name, base = TYPES[rule["resource"]], camel(rule["property"]), BASES[rule["resource"]]
    assert rule["from"] == base.get(name), "the recording started from another program"
    after = {k: v for k, v in base.items() if k != name}
    if rule["to"] != "(removed)":
        after[name] = rule["to"]
    old = (await provider.check("u::web", type_, {}, base, b"seed")).inputs
    new = (await provider.check("u::web", type_, old, after, b"seed")).inputs
    made = made_from(recorded, rule["resource"])
    found = await provider.diff("u::web", type_, made.id, old, made.outputs, new, ())
    assert found.changes is bool(rule["ops"])
    assert list(found.changed_keys) == rule["diffs"]
    assert list(found.replace_keys) == rule["keys"]
    assert {path: d.kind.value for path, d in found.detailed_diff.items()} == rule["detailed_diff"]
    assert found.delete_before_replace is (bool(rule["ops"]) and rule["ops"][0] == "delete-replaced")


def test_the_rules_here_are_those_recorded() -> None:
    if not RECORDED.exists():
        pytest.skip("the recordings of the official engine are not beside this checkout (../shared/reference)")
    for ours, official in zip(RULES, json.loads(RECORDED.read_text()), strict=True):
        assert [ours["from"], ours["to"]] == [official["from"], official["to"]]
        assert ours["ops"] == [op["op"] for op in official["ops"]]


async def test_dockers_own_swap_limit_is_no_change(recorded: dict[str, Any]) -> None:
    """The official provider plans to delete it, in every update."""
    provider = DockerProvider(environment={}, clock=FakeClock())
    type_, program = TYPES["web"], {**BASES["web"], "memory": 64}
    checked = (await provider.check("u::web", type_, {}, program, b"seed")).inputs
    state = {**made_from(recorded, "web").outputs, "memory": 64, "memorySwap": 128}
    assert not (await provider.diff("u::web", type_, "i", checked, state, checked, ())).changes
    given = {**checked, "memorySwap": 256}
    assert (await provider.diff("u::web", type_, "i", checked, state, given, ())).changed_keys == ["memorySwap"]


@pytest.mark.parametrize(
    ("inputs", "place", "words"),
    [
        ({"gpus": "many"}, "gpus", '"all", a number'),
        ({"restart": "sometimes"}, "restart", "one of no, on-failure"),
        ({"ports": [{"internal": 70000}]}, "ports[0].internal", "between 1 and 65535"),
        ({"memory": "much"}, "memory", "number"),
        ({"uploads": [{"file": "/x"}]}, "uploads[0]", "must be set"),
        ({"volumes": [{"hostPath": "/x"}]}, "volumes[0]", "containerPath"),
        ({"healthcheck": {"interval": "soon"}}, "healthcheck.interval", "duration"),
        ({"imagee": "x"}, "imagee", "not an input"),
        ({"command": [""]}, "command", "empty"),
    ],
)
async def test_a_wrong_input_is_refused_by_its_path(inputs: PropertyMap, place: str, words: str) -> None:
    provider = DockerProvider(environment={}, clock=FakeClock())
    result = await provider.check("u::web", TYPES["web"], {}, {"image": "i", **inputs}, b"seed")
    assert [f.property for f in result.failures] == [place]
    assert words in result.failures[0].reason


async def test_keys_and_passwords_of_the_provider_are_secret() -> None:
    provider = DockerProvider(environment={}, clock=FakeClock())
    registry = [{"address": "r.example.org", "username": "u", "password": "p"}]
    checked = await provider.check_config(
        "u", {}, {"host": "tcp://h:2376", "keyMaterial": "k", "registryAuth": registry}
    )
    assert checked.inputs["host"] == "tcp://h:2376"
    assert checked.inputs["keyMaterial"] == Secret("k")
    assert isinstance(checked.inputs["registryAuth"], Secret)
    wrong = await provider.check_config("u", {}, {"host": "h:2376"})
    assert "must begin with" in wrong.failures[0].reason
