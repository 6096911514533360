"""Previews: unknowns flow, nothing happens."""

from __future__ import annotations

from typing import Any

import pulumi

from tests.fakes.scenario import Group, Scenario, Thing

UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"


def program(kind: str = "x", size: int = 1) -> Any:
    def inner() -> None:
        group = Group("g")
        a = Thing("a", {"kind": kind, "size": size}, pulumi.ResourceOptions(parent=group))
        Thing("b", {"peer": a.address, "id": a.id})
        group.register_outputs({"address": a.address})
        pulumi.export("address", a.address)

    return inner


def test_preview_of_a_create(scenario: Scenario) -> None:
    run = scenario.preview(program())

    assert run.result.succeeded, run.errors
    assert not scenario.cloud.things and run.result.resource_changes == {"create": 4}
    assert all(e["resourcePreEvent"]["planning"] for e in run.events if "resourcePreEvent" in e)
    b = run.metadata("::b", "resOutputsEvent")[0]["new"]
    assert b["inputs"]["peer"] == UNKNOWN and b["inputs"]["id"] == UNKNOWN and b["id"] == ""
    provider = run.metadata("::default_1_2_3", "resOutputsEvent")[0]["new"]
    assert provider["id"] == UNKNOWN
    assert run.metadata("::g", "resOutputsEvent")[-1]["new"]["outputs"] == {"address": UNKNOWN}


def test_preview_of_an_update_knows_what_stays(scenario: Scenario) -> None:
    scenario.up(program())
    run = scenario.preview(program(size=2))
    assert run.result.resource_changes == {"same": 3, "update": 1}
    assert run.ops["a"] == ["update"] and run.ops["b"] == ["same"]


def test_preview_of_a_replacement(scenario: Scenario) -> None:
    scenario.up(program())
    run = scenario.preview(program(kind="y"))
    assert run.ops["a"] == ["create-replacement", "replace", "delete-replaced"]
    assert run.ops["b"] == ["update"]
    assert run.result.resource_changes == {"replace": 1, "same": 2, "update": 1}
    assert len(scenario.cloud.things) == 2


def test_preview_of_a_removal(scenario: Scenario) -> None:
    scenario.up(program())
    run = scenario.preview(lambda: None)
    assert run.ops["a"] == ["delete"] and run.result.resource_changes == {"delete": 3, "same": 1}
    assert len(scenario.cloud.things) == 2


def test_expect_no_changes(scenario: Scenario) -> None:
    scenario.up(program())
    assert scenario.preview(program(), expect_no_changes=True).result.succeeded
    run = scenario.preview(program(size=2), expect_no_changes=True)
    assert not run.result.succeeded and "no changes were expected" in run.result.message
