"""Replacement, create first: the default."""

from __future__ import annotations

from typing import Any

import pulumi

from tests.fakes.scenario import Scenario, Thing


def program_with(kind: str, options: pulumi.ResourceOptions | None = None, **props: Any) -> Any:
    def program() -> None:
        a = Thing("a", {"kind": kind, **props}, options)
        Thing("b", {"peer": a.address})

    return program


def test_create_before_delete(scenario: Scenario) -> None:
    scenario.up(program_with("x"))
    run = scenario.up(program_with("y"))

    assert run.ops["a"] == ["create-replacement", "replace", "delete-replaced"]
    assert run.ops["b"] == ["update"], "the dependent follows before the old copy goes"
    assert run.order.index(("update", "b")) < run.order.index(("delete-replaced", "a"))
    assert run.result.resource_changes == {"replace": 1, "same": 1, "update": 1}
    assert [t.properties["kind"] for t in scenario.cloud.made("a")] == ["y"]
    metadata = run.metadata("::a")[0]
    assert metadata["keys"] == ["kind"] and metadata["detailedDiff"]["kind"]["diffKind"] == "update-replace"
    assert "logical" not in metadata


def test_old_copy_stays_when_its_delete_fails_and_goes_next_time(scenario: Scenario) -> None:
    scenario.up(program_with("x"))
    scenario.cloud.fail("delete", "a")
    run = scenario.up(program_with("y"))
    assert not run.result.succeeded
    assert [s.delete for s in run.result.snapshot.resources if s.urn.endswith("::a")].count(True) == 1

    again = scenario.up(program_with("y"))
    assert again.result.succeeded and again.ops["a"] == ["same", "delete-replaced"]
    assert again.result.resource_changes == {"same": 3}
    assert len(scenario.cloud.made("a")) == 1


def test_failed_replacement_keeps_the_old_one(scenario: Scenario) -> None:
    before = scenario.up(program_with("x")).state("a")
    scenario.cloud.fail("create", "a")
    run = scenario.up(program_with("y"))
    assert not run.result.succeeded and run.state("a") == before
    assert len(scenario.cloud.made("a")) == 1


def test_replacement_gets_a_fresh_name(scenario: Scenario) -> None:
    first = scenario.up(program_with("x")).state("a")
    second = scenario.up(program_with("y")).state("a")
    assert first.inputs["name"] != second.inputs["name"]


def test_replace_on_changes(scenario: Scenario) -> None:
    options = pulumi.ResourceOptions(replace_on_changes=["size"])
    scenario.up(program_with("x", options, size=1))
    run = scenario.up(program_with("x", options, size=2))
    assert run.ops["a"][0] == "create-replacement"
    assert run.metadata("::a")[0]["keys"] == ["size"]


def test_retain_on_delete_leaves_the_thing(scenario: Scenario) -> None:
    options = pulumi.ResourceOptions(retain_on_delete=True)
    scenario.up(program_with("x", options))
    scenario.up(program_with("y", options))
    assert len(scenario.cloud.made("a")) == 2
    run = scenario.destroy()
    assert run.result.succeeded and not run.result.snapshot.resources
    assert len(scenario.cloud.made("a")) == 2 and not scenario.cloud.made("b")
