"""References to resources as values: in inputs, in outputs of the stack, and looked up by URN."""

from __future__ import annotations

import pulumi

from engine.deploy.property import ResourceReference
from tests.fakes.scenario import Group, Scenario, Thing


def test_resource_as_an_input(scenario: Scenario) -> None:
    def program() -> None:
        a = Thing("a")
        Thing("b", {"target": a})

    run = scenario.up(program)
    assert run.result.succeeded, run.errors
    a, b = run.state("a"), run.state("b")
    assert b.inputs["target"] == ResourceReference(a.urn, a.id, "")
    assert list(b.dependencies) == [a.urn]
    assert scenario.up(program).entries == []


def test_resource_as_an_output_of_a_component(scenario: Scenario) -> None:
    def program() -> None:
        group = Group("g")
        a = Thing("a", {}, pulumi.ResourceOptions(parent=group))
        group.register_outputs({"thing": a})

    run = scenario.up(program)
    assert run.result.succeeded, run.errors
    reference = ResourceReference(run.state("a").urn, run.state("a").id, "")
    assert run.state("g").outputs["thing"] == reference


def test_get_resource_knows_what_was_registered_or_read(scenario: Scenario) -> None:
    def program() -> None:
        a = Thing("a", {"size": 3})

        def look_up(urn: str) -> object:
            return pulumi.runtime.invoke("pulumi:pulumi:getResource", {"urn": urn}).value["state"]["size"]

        pulumi.export("size", a.urn.apply(look_up))

    run = scenario.up(program)
    assert run.result.succeeded, run.errors
    assert run.result.outputs == {"size": 3}
