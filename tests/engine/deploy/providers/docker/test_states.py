"""States key by key as the official provider writes them, from the same inputs and the same daemon's words."""

from __future__ import annotations

from typing import Any

import pytest

from engine.deploy.property import PropertyMap
from engine.deploy.provider import PartialFailure
from engine.deploy.providers.bridge.schema import stored_inputs
from engine.deploy.providers.docker import DockerProvider
from engine.deploy.providers.docker.container_body import create_body
from engine.deploy.providers.docker.container_table import SCHEMA
from engine.deploy.providers.docker.container_values import values_of
from engine.model.clock import SystemClock
from tests.fakes.clock import FakeClock
from tests.fakes.docker_words import DaemonOfOne

NAMES = {"web": "g2-web", "net": "g2net", "vol": "g2vol"}
LABELS = [*NAMES, "img", "tag"]


def without_order(state: PropertyMap) -> PropertyMap:
    """A state with its mounts in one order: the official one changes between create and refresh."""
    mounts = state.get("mounts")
    return state if mounts is None else {**state, "mounts": sorted(mounts, key=lambda m: str(m["target"]))}


def delta_less(state: PropertyMap) -> PropertyMap:
    return {k: v for k, v in without_order(state).items() if k != "__pulumi_raw_state_delta"}


async def provider_of(recorded: dict[str, Any], label: str) -> DockerProvider:
    state = recorded["up"][label]["outputs"]
    image = {"Id": state.get("imageId") or state.get("sourceImageId"), "RepoDigests": []}
    thing = recorded["inspect"][NAMES[label]] if label in NAMES else image
    provider = DockerProvider(environment={}, clock=FakeClock(), connect=lambda _settings: DaemonOfOne(thing))
    await provider.configure({})
    return provider


@pytest.mark.parametrize("label", LABELS)
async def test_a_create_writes_the_recorded_outputs(recorded: dict[str, Any], label: str) -> None:
    state = recorded["up"][label]
    provider = await provider_of(recorded, label)
    checked = await provider.check("u", state["type"], {}, state["inputs"], b"seed")
    made = await provider.create("u", state["type"], checked.inputs, 0, False)
    assert made.id == state["id"]
    assert without_order(made.outputs) == without_order(state["outputs"])
    await provider.close()


@pytest.mark.parametrize("label", LABELS)
async def test_a_refresh_writes_the_recorded_outputs_and_inputs(recorded: dict[str, Any], label: str) -> None:
    before, after = recorded["up"][label], recorded["refreshed"][label]
    provider = await provider_of(recorded, label)
    found = await provider.read("u", before["type"], before["id"], before["inputs"], before["outputs"])
    assert found.id == after["id"]
    assert delta_less(found.outputs) == delta_less(after["outputs"])
    assert found.inputs == after["inputs"]
    await provider.close()


def test_docker_is_asked_for_what_the_official_provider_asks_for(recorded: dict[str, Any]) -> None:
    inspected = recorded["inspect"]["g2-web"]
    inputs = stored_inputs(SCHEMA, recorded["up"]["web"]["inputs"])
    body = create_body(inputs)
    host = body.pop("HostConfig")
    for key in body.keys() - {"Volumes", "Image"}:
        assert _plain(body[key]) == _plain(inspected["Config"][key]), key
    for key in host.keys() - {"Mounts", "Init"}:
        assert host[key] == inspected["HostConfig"][key], key
    mounts = {m["Target"]: m for m in host["Mounts"]}
    assert len(mounts) == 3
    for theirs in inspected["HostConfig"]["Mounts"]:
        assert theirs.items() <= _without_zeros(mounts[theirs["Target"]]).items()


def _plain(value: Any) -> Any:
    """The environment as a set, without what Docker adds."""
    return {e for e in value if not e.startswith("PATH=")} if isinstance(value, list) and "FOO=1" in value else value


def _without_zeros(mount: dict[str, Any]) -> dict[str, Any]:
    return {k: {n: v for n, v in o.items() if v} if isinstance(o, dict) else o for k, o in mount.items()}


def test_an_exited_container_says_so(recorded: dict[str, Any]) -> None:
    inspected = dict(recorded["inspect"]["g2-web"])
    inspected["State"] = {**inspected["State"], "Running": False, "Status": "exited", "ExitCode": 3}
    values = values_of(inspected, recorded["up"]["web"]["outputs"])
    assert (values["mustRun"], values["exitCode"]) == (False, 3)
    assert values["ports"] == recorded["up"]["web"]["outputs"]["ports"]


async def test_an_operation_ends_at_its_timeout(recorded: dict[str, Any]) -> None:
    state, daemon = recorded["up"]["web"], DaemonOfOne(recorded["inspect"]["g2-web"])
    provider = DockerProvider(environment={}, clock=SystemClock(), connect=lambda _settings: daemon)
    await provider.configure({})
    checked = await provider.check("u", state["type"], {}, {**state["inputs"], "attach": True}, b"seed")
    with pytest.raises(PartialFailure, match="has not finished within 1 seconds") as caught:
        await provider.create("u", state["type"], checked.inputs, 1.0, False)
    daemon.may_end.set()
    assert caught.value.id == state["id"]
    assert caught.value.outputs["image"] == state["outputs"]["image"]
    await provider.close()
