"""Create, same and delete of plain resources."""

from __future__ import annotations

import pulumi

from tests.fakes.scenario import Group, Scenario, Thing


def test_create_when_the_stack_is_empty(scenario: Scenario) -> None:
    def program() -> None:
        group = Group("g")
        thing = Thing("a", {"size": 1}, pulumi.ResourceOptions(parent=group))
        group.register_outputs({"address": thing.address})
        pulumi.export("address", thing.address)

    run = scenario.up(program)

    assert run.result.succeeded, run.errors
    assert run.ops == {"lab-dev": ["create"], "g": ["create"], "default_1_2_3": ["create"], "a": ["create"]}
    assert run.result.resource_changes == {"create": 3}
    assert run.result.outputs == {"address": "10.0.0.1"}
    assert run.state("a").urn == "urn:pulumi:dev::lab::fake:index:Group$fake:index:Thing::a"
    assert run.state("g").outputs == {"address": "10.0.0.1"}
    assert len(scenario.cloud.things) == 1


def test_same_when_nothing_changed(scenario: Scenario) -> None:
    def program() -> None:
        pulumi.export("address", Thing("a", {"size": 1}).address)

    first = scenario.up(program)
    second = scenario.up(program)

    assert second.result.resource_changes == {"same": 2}
    assert second.result.outputs == {"address": "10.0.0.1"}
    assert second.entries == [], "an update that changes nothing writes nothing"
    assert second.result.snapshot == first.result.snapshot


def test_destroy_removes_everything(scenario: Scenario) -> None:
    def program() -> None:
        a = Thing("a")
        Thing("b", {"peer": a.address})

    scenario.up(program)
    run = scenario.destroy()

    assert run.result.succeeded
    assert run.result.resource_changes == {"delete": 3}
    assert [name for op, name in run.order if name in "ab"] == ["b", "a"]
    assert run.result.snapshot.resources == []
    assert not scenario.cloud.things
