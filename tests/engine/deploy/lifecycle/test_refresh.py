"""Refresh: the state follows the cloud."""

from __future__ import annotations

import pulumi

from tests.fakes.scenario import Group, Scenario, Thing


def program() -> None:
    group = Group("g")
    a = Thing("a", {"size": 1}, pulumi.ResourceOptions(parent=group))
    Thing("b", {"peer": a.address})
    group.register_outputs({})


def test_refresh_when_nothing_changed(scenario: Scenario) -> None:
    before = scenario.up(program).result.snapshot
    run = scenario.refresh()
    assert run.result.succeeded
    assert run.result.resource_changes == {"same": 4}
    assert run.ops["a"] == ["refresh"] and run.ops["g"] == ["refresh"]
    assert [m["op"] for m in run.metadata("::a", "resOutputsEvent")] == ["same"]
    assert run.result.snapshot == before and run.entries == []


def test_refresh_takes_over_what_changed(scenario: Scenario) -> None:
    id = scenario.up(program).state("a").id
    scenario.cloud.things[id].properties["size"] = 7
    run = scenario.refresh()
    assert run.result.resource_changes == {"same": 3, "update": 1}
    assert run.state("a").inputs["size"] == 7 == run.state("a").outputs["size"]
    back = scenario.up(program)
    assert back.ops["a"] == ["update"] and scenario.cloud.things[id].properties["size"] == 1


def test_refresh_forgets_what_vanished(scenario: Scenario) -> None:
    id = scenario.up(program).state("a").id
    del scenario.cloud.things[id]
    run = scenario.refresh()
    assert run.result.resource_changes == {"delete": 1, "same": 3}
    assert not run.has("a")
    assert run.state("b").property_dependencies == {"peer": ()}, "nothing refers to it any more"
    again = scenario.up(program)
    assert again.ops["a"] == ["create"] and len(scenario.cloud.made("a")) == 1


def test_up_with_refresh(scenario: Scenario) -> None:
    id = scenario.up(program).state("a").id
    del scenario.cloud.things[id]
    run = scenario.up(program, refresh=True)
    assert run.result.succeeded and run.ops["a"] == ["refresh", "create"]
    assert run.result.resource_changes == {"create": 1, "same": 2, "update": 1}, "what the refresh saw does not count"
    assert len(scenario.cloud.made("a")) == 1


def test_refresh_failure_keeps_the_state(scenario: Scenario) -> None:
    before = scenario.up(program).result.snapshot
    scenario.cloud.fail("read", "a", "503")
    run = scenario.refresh()
    assert not run.result.succeeded and "503" in run.errors
    assert run.result.snapshot == before
