"""Updates in place, and what they do not touch."""

from __future__ import annotations

from typing import Any

import pulumi

from tests.fakes.scenario import Scenario, Thing


def program_with(**props: Any) -> Any:
    def program() -> None:
        Thing("a", props)

    return program


def test_update_in_place_when_a_property_changes(scenario: Scenario) -> None:
    created = scenario.up(program_with(size=1, tags=["x"])).state("a")
    run = scenario.up(program_with(size=1, tags=["x", "y"]))

    assert run.ops["a"] == ["update"]
    assert run.result.resource_changes == {"same": 1, "update": 1}
    assert run.metadata("::a")[0]["diffs"] == ["tags"]
    assert run.metadata("::a")[0]["detailedDiff"] == {"tags[1]": {"diffKind": "add", "inputDiff": False}}
    state = run.state("a")
    assert state.id == created.id and state.created == created.created and state.modified > created.modified
    assert state.outputs["tags"] == ["x", "y"]
    assert scenario.cloud.things[state.id].properties["tags"] == ["x", "y"]


def test_auto_name_survives_updates(scenario: Scenario) -> None:
    first = scenario.up(program_with(size=1)).state("a")
    second = scenario.up(program_with(size=2)).state("a")
    assert first.inputs["name"] == second.inputs["name"] != "a"


def test_numbers_stay_whole(scenario: Scenario) -> None:
    state = scenario.up(program_with(size=3, share=0.5)).state("a")
    assert repr(state.inputs["size"]) == "3" and state.inputs["share"] == 0.5


def test_ignore_changes_keeps_the_old_value(scenario: Scenario) -> None:
    def program(size: int, tag: str) -> Any:
        def inner() -> None:
            options = pulumi.ResourceOptions(ignore_changes=["size", "labels.tag"])
            Thing("a", {"size": size, "labels": {"tag": tag}}, options)

        return inner

    scenario.up(program(1, "x"))
    run = scenario.up(program(2, "y"))
    assert run.ops["a"] == ["same"]
    assert run.state("a").inputs["size"] == 1 and run.state("a").inputs["labels"] == {"tag": "x"}


def test_update_failure_keeps_the_old_state(scenario: Scenario) -> None:
    before = scenario.up(program_with(size=1)).state("a")
    scenario.cloud.fail("update", "a", "quota exceeded")
    run = scenario.up(program_with(size=2))

    assert not run.result.succeeded
    assert run.state("a") == before
    assert "quota exceeded" in run.errors
    assert run.metadata("::a", "resOpFailedEvent")[0]["op"] == "update"
    assert not run.result.snapshot.pending_operations


def test_half_done_update_is_kept_with_its_errors_and_tried_again(scenario: Scenario) -> None:
    scenario.up(program_with(size=1))
    failed = scenario.up(program_with(size=2, broken=True))
    assert not failed.result.succeeded
    assert failed.state("a").init_errors == ("it never became ready",)
    assert failed.state("a").inputs["size"] == 1, "inputs that were not reached were recorded"
    assert failed.metadata("::a", "resOpFailedEvent")[0]["new"]["inputs"]["size"] == 2

    again = scenario.up(program_with(size=2))
    assert again.ops["a"] == ["update"] and again.state("a").init_errors == ()


def test_dependencies_and_timeouts_are_recorded(scenario: Scenario) -> None:
    def program() -> None:
        a = Thing("a")
        b = Thing("b", {}, pulumi.ResourceOptions(depends_on=[a], custom_timeouts=pulumi.CustomTimeouts(create="5m")))
        Thing("c", {"peer": b.address}, pulumi.ResourceOptions(retain_on_delete=True, deleted_with=b))

    run = scenario.up(program)
    a, b, c = (run.state(n) for n in "abc")
    assert list(b.dependencies) == [a.urn] and b.custom_timeouts == {"create": 300.0}
    assert c.property_dependencies["peer"] == (b.urn,) and c.retain_on_delete and c.deleted_with == b.urn
    assert scenario.up(program).entries == []
