"""Aliases: a renamed or moved resource is the same resource."""

from __future__ import annotations

import pulumi

from tests.fakes.scenario import Group, Scenario, Thing


def test_renamed_resource(scenario: Scenario) -> None:
    def before() -> None:
        a = Thing("old", {"name": "n"})
        Thing("b", {"peer": a.address})

    def after() -> None:
        a = Thing("new", {"name": "n"}, pulumi.ResourceOptions(aliases=[pulumi.Alias(name="old")]))
        Thing("b", {"peer": a.address})

    id = scenario.up(before).state("old").id
    run = scenario.up(after)
    assert run.ops["new"] == ["same"] and run.ops["b"] == ["same"]
    assert run.state("new").id == id and not run.has("old")
    assert list(run.state("b").dependencies) == [run.state("new").urn]
    assert len(scenario.cloud.things) == 2


def test_children_of_a_renamed_component(scenario: Scenario) -> None:
    def program(name: str, aliases: list[str]) -> None:
        group = Group(name, pulumi.ResourceOptions(aliases=[pulumi.Alias(name=a) for a in aliases]))
        Thing(f"{name}-child", {"name": "n"}, pulumi.ResourceOptions(parent=group))

    id = scenario.up(lambda: program("one", [])).state("one-child").id
    run = scenario.up(lambda: program("two", ["one"]))
    assert run.result.succeeded, run.errors
    assert run.ops["two-child"] == ["same"] and run.state("two-child").id == id
    assert len(scenario.cloud.things) == 1


def test_moved_under_a_component(scenario: Scenario) -> None:
    def after() -> None:
        group = Group("g")
        options = pulumi.ResourceOptions(parent=group, aliases=[pulumi.Alias(parent=pulumi.ROOT_STACK_RESOURCE)])
        Thing("a", {"name": "n"}, options)

    id = scenario.up(lambda: (Thing("a", {"name": "n"}), None)[1]).state("a").id
    run = scenario.up(after)
    assert run.result.succeeded, run.errors
    assert run.ops["a"] == ["same"] and run.state("a").id == id


def test_failed_program_after_a_rename_leaves_no_dangling_reference(scenario: Scenario) -> None:
    def before() -> None:
        a = Thing("old", {"name": "n"})
        Thing("b", {"peer": a.address})

    def after() -> None:
        Thing("new", {"name": "n"}, pulumi.ResourceOptions(aliases=[pulumi.Alias(name="old")]))
        raise ValueError("on purpose")

    scenario.up(before)
    run = scenario.up(after)
    assert not run.result.succeeded and run.has("b")
    assert list(run.state("b").dependencies) == [run.state("new").urn]


def test_former_name_taken_by_another(scenario: Scenario) -> None:
    def after() -> None:
        new = Thing("new", {"name": "n"}, pulumi.ResourceOptions(aliases=[pulumi.Alias(name="old")]))
        Thing("old", {"name": "n"}, pulumi.ResourceOptions(depends_on=[new]))

    scenario.up(lambda: (Thing("old", {"name": "n"}), None)[1])
    run = scenario.up(after)
    assert not run.result.succeeded and "conflicting with alias on resource" in run.errors
    assert len(scenario.cloud.things) == 1
