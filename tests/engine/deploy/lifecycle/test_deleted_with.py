"""deletedWith: what goes with another resource is not deleted by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pulumi

from engine.deploy.checkpoint import CheckpointCodec
from tests.fakes.scenario import Group, Program, Scenario, Thing


def program(names: str = "ab", kind: str = "x", slot: str = "x") -> Program:
    """b is deleted with a."""

    def inner() -> None:
        a = Thing("a", {"kind": kind, "slot": slot}) if "a" in names else None
        if "b" in names:
            Thing("b", {}, pulumi.ResourceOptions(deleted_with=a))

    return inner


def deletes(scenario: Scenario) -> Sequence[str]:
    return [c.urn.rpartition("::")[2] for c in scenario.cloud.calls if c.method == "delete"]


def test_destroy_deletes_only_the_other(scenario: Scenario) -> None:
    scenario.up(program())
    run = scenario.destroy()
    assert run.result.succeeded, run.errors
    assert deletes(scenario) == ["a"] and not run.result.snapshot.resources
    assert run.ops["b"] == ["delete"], "the step is there; the provider is not asked"


def test_removed_together(scenario: Scenario) -> None:
    scenario.up(program())
    run = scenario.up(program(""))
    assert run.result.succeeded, run.errors
    assert deletes(scenario) == ["a"] and not run.has("b")


def test_removed_alone(scenario: Scenario) -> None:
    scenario.up(program())
    run = scenario.up(program("a"))
    assert run.result.succeeded, run.errors
    assert deletes(scenario) == ["b"] and run.has("a")


def test_replacement_replaces_it_too(scenario: Scenario) -> None:
    scenario.up(program(kind="x"))
    run = scenario.up(program(kind="y"))
    assert run.result.succeeded, run.errors
    assert run.ops["b"] == ["create-replacement", "replace", "delete-replaced"]
    assert deletes(scenario) == ["a"], "the old b went with the old a"
    assert scenario.cloud.created == 4


def test_chain(scenario: Scenario) -> None:
    def chain() -> None:
        a = Thing("a")
        b = Thing("b", {}, pulumi.ResourceOptions(deleted_with=a))
        Thing("c", {}, pulumi.ResourceOptions(deleted_with=b))

    scenario.up(chain)
    scenario.destroy()
    assert deletes(scenario) == ["a"]


def test_children_inherit_it(scenario: Scenario) -> None:
    def inner() -> None:
        a = Thing("a")
        group = Group("g", pulumi.ResourceOptions(deleted_with=a))
        Thing("child", {}, pulumi.ResourceOptions(parent=group))

    run = scenario.up(inner)
    assert run.state("child").deleted_with == run.state("a").urn
    scenario.destroy()
    assert deletes(scenario) == ["a"]


def test_retained_other_is_no_reason_to_skip(scenario: Scenario) -> None:
    """What is left in the cloud takes nothing with it, yet Pulumi deletes nothing either: the state forgets both."""

    def inner() -> None:
        a = Thing("a", {}, pulumi.ResourceOptions(retain_on_delete=True))
        Thing("b", {}, pulumi.ResourceOptions(deleted_with=a))

    scenario.up(inner)
    run = scenario.destroy()
    assert run.result.succeeded and not run.result.snapshot.resources
    assert deletes(scenario) == []


def test_it_survives_the_checkpoint(scenario: Scenario) -> None:
    run = scenario.up(program())
    codec = CheckpointCodec(None)
    stored: dict[str, Any] = codec.dump_resource(run.state("b"))
    assert stored["deletedWith"] == run.state("a").urn
    assert codec.load_resource(stored).deleted_with == run.state("a").urn
