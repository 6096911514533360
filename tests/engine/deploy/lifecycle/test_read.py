"""Resources that exist already: `opts.id`, and data sources."""

from __future__ import annotations

from typing import Any

import pulumi

from tests.fakes.provider import InMemoryProvider
from tests.fakes.scenario import Scenario, Thing

URN = "urn:pulumi:other::other::fake:index:Thing::elsewhere"


def reading(id: str) -> Any:
    def program() -> None:
        external = Thing("ext", {}, pulumi.ResourceOptions(id=id))
        Thing("a", {"peer": external.address})

    return program


def test_read_an_external_resource(scenario: Scenario) -> None:
    thing = InMemoryProvider(scenario.cloud).make(URN, {"name": "x"})
    run = scenario.up(reading(thing.id))

    assert run.result.succeeded, run.errors
    state = run.state("ext")
    assert state.external and state.id == thing.id and state.outputs["name"] == "x"
    assert run.ops["ext"] == ["read"] and run.state("a").inputs["peer"] == "10.0.0.1"
    assert scenario.up(reading(thing.id)).ops["ext"] == ["read"]
    assert scenario.destroy().result.succeeded
    assert list(scenario.cloud.things) == [thing.id], "what was only read is not deleted"


def test_read_of_what_does_not_exist(scenario: Scenario) -> None:
    run = scenario.up(reading("nope"))
    assert not run.result.succeeded and "resource 'nope' does not exist" in run.errors


def test_read_replaces_a_managed_resource(scenario: Scenario) -> None:
    thing = InMemoryProvider(scenario.cloud).make(URN, {"name": "x"})

    def managed() -> None:
        a = Thing("ext", {"size": 1})
        Thing("a", {"peer": a.address})

    scenario.up(managed)
    run = scenario.up(reading(thing.id))
    assert run.ops["ext"] == ["read-replacement", "replace", "delete-replaced"]
    assert run.state("ext").external and not scenario.cloud.made("ext")
