"""retainOnDelete: the stack forgets the resource, the cloud keeps it."""

from __future__ import annotations

import pulumi

from engine.deploy.checkpoint import CheckpointCodec
from tests.fakes.scenario import Group, Program, Scenario, Thing


def program(names: str = "a", kind: str = "x", retain: bool = True) -> Program:
    options = pulumi.ResourceOptions(retain_on_delete=retain)
    return lambda: ([Thing(name, {"kind": kind}, options) for name in names], None)[1]


def test_removed_from_the_program(scenario: Scenario) -> None:
    scenario.up(program("ab"))
    run = scenario.up(program("a"))
    assert run.result.succeeded, run.errors
    assert run.ops["b"] == ["delete"] and not run.has("b")
    assert len(scenario.cloud.made("b")) == 1 and "delete" not in scenario.cloud.methods("b")


def test_destroyed(scenario: Scenario) -> None:
    scenario.up(program())
    run = scenario.destroy()
    assert run.result.succeeded and not run.result.snapshot.resources
    assert len(scenario.cloud.things) == 1


def test_replaced(scenario: Scenario) -> None:
    scenario.up(program(kind="x"))
    run = scenario.up(program(kind="y"))
    assert run.result.succeeded, run.errors
    assert run.ops["a"] == ["create-replacement", "replace", "delete-replaced"]
    assert sorted(t.properties["kind"] for t in scenario.cloud.made("a")) == ["x", "y"]
    assert [s.id for s in run.result.snapshot.resources if s.urn.endswith("::a")] == ["id-2"]


def test_option_counts_as_it_was_last_stored(scenario: Scenario) -> None:
    """A delete knows the option from the state: the program that would say otherwise no longer has the resource."""
    scenario.up(program(retain=True))
    run = scenario.up(program(retain=False))
    assert run.ops["a"] == ["same"] and not run.state("a").retain_on_delete
    scenario.destroy()
    assert not scenario.cloud.things


def test_children_inherit_it(scenario: Scenario) -> None:
    def inner() -> None:
        group = Group("g", pulumi.ResourceOptions(retain_on_delete=True))
        Thing("child", {}, pulumi.ResourceOptions(parent=group))

    assert scenario.up(inner).state("child").retain_on_delete
    scenario.destroy()
    assert len(scenario.cloud.made("child")) == 1


def test_preview_shows_the_delete(scenario: Scenario) -> None:
    scenario.up(program("ab"))
    run = scenario.preview(program("a"))
    assert run.result.resource_changes["delete"] == 1
    assert run.metadata("::b")[0]["old"]["retainOnDelete"]


def test_it_survives_the_checkpoint(scenario: Scenario) -> None:
    state = scenario.up(program()).state("a")
    codec = CheckpointCodec(None)
    stored = codec.dump_resource(state)
    assert stored["retainOnDelete"] is True and codec.load_resource(stored).retain_on_delete
