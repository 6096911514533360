"""`replacement_trigger`: a value whose change replaces the resource."""

from __future__ import annotations

from typing import Any

import pulumi

from engine.deploy.property import Secret
from tests.fakes.scenario import Group, Scenario, Thing

REPLACED = ["create-replacement", "replace", "delete-replaced"]


def program(trigger: Any, **options: Any) -> Any:
    def inner() -> None:
        value = trigger() if callable(trigger) else trigger
        Thing("a", {"size": 1}, pulumi.ResourceOptions(replacement_trigger=value, **options))

    return inner


def test_a_changed_value_replaces(scenario: Scenario) -> None:
    first = scenario.up(program("one"))
    assert first.result.succeeded, first.errors
    assert first.state("a").replacement_trigger == "one"
    assert scenario.up(program("one")).entries == []
    run = scenario.up(program("two"))
    assert run.result.succeeded, run.errors
    assert run.ops["a"] == REPLACED and run.state("a").replacement_trigger == "two"


def test_a_trigger_that_comes_or_goes_does_not(scenario: Scenario) -> None:
    scenario.up(program(None))
    assert scenario.up(program("one")).ops["a"] == ["same"]
    run = scenario.up(program(None))
    assert run.ops["a"] == ["same"] and run.state("a").replacement_trigger is None


def test_structures_and_secrets(scenario: Scenario) -> None:
    first = scenario.up(program(lambda: pulumi.Output.secret([1, {"x": 2}])))
    assert first.result.succeeded, first.errors
    assert first.state("a").replacement_trigger == Secret([1, {"x": 2}])
    assert scenario.up(program([1, {"x": 2}])).ops["a"] == ["same"], "only the value counts"
    assert scenario.up(program([1, {"x": 3}])).ops["a"] == REPLACED


def test_unknown_in_preview_is_a_replacement(scenario: Scenario) -> None:
    def with_other(size: int) -> Any:
        def inner() -> None:
            other = Thing("b", {"kind": size})
            Thing("a", {}, pulumi.ResourceOptions(replacement_trigger=other.address))

        return inner

    scenario.up(with_other(1))
    preview = scenario.preview(with_other(2))
    assert preview.result.succeeded, preview.errors
    assert preview.ops["a"][:2] == REPLACED[:2]
    run = scenario.up(with_other(2))
    assert run.result.succeeded and run.ops["a"] == REPLACED


def test_deletes_first_where_the_program_says_so(scenario: Scenario) -> None:
    scenario.up(program("one", delete_before_replace=True))
    run = scenario.up(program("two", delete_before_replace=True))
    assert run.ops["a"] == ["delete-replaced", "replace", "create-replacement"]


def test_protected_is_not_replaced(scenario: Scenario) -> None:
    scenario.up(program("one", protect=True))
    run = scenario.up(program("two", protect=True))
    assert not run.result.succeeded and "marked for protection" in run.errors


def test_replace_with(scenario: Scenario) -> None:
    def inner(kind: str, **options: Any) -> Any:
        def body() -> None:
            a = Thing("a", {"kind": kind}, pulumi.ResourceOptions(**options))
            Thing("b", {}, pulumi.ResourceOptions(replace_with=[a]))

        return body

    first = scenario.up(inner("x"))
    assert first.result.succeeded, first.errors
    assert list(first.state("b").replace_with) == [first.state("a").urn]
    assert scenario.up(inner("x")).entries == []
    run = scenario.up(inner("y"))
    assert run.result.succeeded, run.errors
    assert run.ops["a"] == REPLACED and run.ops["b"] == REPLACED
    assert run.metadata("::b")[0]["keys"] == ["replaceWith"]
    run = scenario.up(inner("z", delete_before_replace=True))
    assert run.result.succeeded, run.errors
    assert run.order.index(("delete-replaced", "b")) < run.order.index(("delete-replaced", "a"))
    assert len(scenario.cloud.things) == 2


def test_deleted_with_is_replaced_along(scenario: Scenario) -> None:
    def inner(kind: str) -> Any:
        def body() -> None:
            a = Thing("a", {"kind": kind})
            Thing("b", {}, pulumi.ResourceOptions(deleted_with=a))

        return body

    scenario.up(inner("x"))
    run = scenario.up(inner("y"))
    assert run.ops["b"] == REPLACED and run.metadata("::b")[0]["keys"] == ["deletedWith"]


def test_component(scenario: Scenario) -> None:
    def inner(trigger: str) -> Any:
        return lambda: (Group("g", pulumi.ResourceOptions(replacement_trigger=trigger)), None)[1]

    scenario.up(inner("one"))
    run = scenario.up(inner("two"))
    assert run.result.succeeded, run.errors
    assert run.ops["g"][0] == "create-replacement"
