"""References to other stacks' outputs, and the other resources of the provider `pulumi`."""

from __future__ import annotations

from typing import Any

import pulumi

from engine.deploy.property import PropertyMap, Secret
from engine.deploy.provider import ProviderError
from tests.fakes.scenario import Scenario, Thing


class Stacks:
    def __init__(self, **stacks: PropertyMap) -> None:
        self.stacks = stacks

    async def stack_outputs(self, name: str) -> PropertyMap:
        if name not in self.stacks:
            raise ProviderError(f'unknown stack "{name}"')
        return self.stacks[name]


def program(name: str = "other", output: str = "address") -> Any:
    def inner() -> None:
        other = pulumi.StackReference("ref", name)
        Thing("a", {"via": other.get_output(output)})
        pulumi.export("names", other.secret_output_names)

    return inner


def bare() -> None:
    pulumi.StackReference("ref", "other")


def test_outputs_of_another_stack(scenario: Scenario) -> None:
    scenario.stacks = Stacks(other={"address": "10.1.1.1", "token": Secret("t")})
    run = scenario.up(program())

    assert run.result.succeeded, run.errors
    assert run.state("a").inputs["via"] == "10.1.1.1"
    assert run.result.outputs["names"] == ["token"]
    state = run.state("ref")
    assert (state.id, state.external, state.type) == ("other", True, "pulumi:pulumi:StackReference")
    assert state.outputs["outputs"] == {"address": "10.1.1.1", "token": Secret("t")}
    assert state.provider.startswith("urn:pulumi:dev::lab::pulumi:providers:pulumi::default::")
    assert run.ops["ref"] == ["read"] and "read" not in run.result.resource_changes  # as no first read is


def test_secret_output_stays_secret(scenario: Scenario) -> None:
    scenario.stacks = Stacks(other={"token": Secret("t")})
    run = scenario.up(program(output="token"))
    assert run.state("a").inputs["via"] == Secret("t")


def test_changed_output_reaches_the_program(scenario: Scenario) -> None:
    stacks = scenario.stacks = Stacks(other={"address": "10.1.1.1"})
    scenario.up(program())
    same = scenario.up(program(), expect_no_changes=True)
    assert same.result.succeeded, same.errors
    stacks.stacks["other"] = {"address": "10.2.2.2"}
    run = scenario.up(program())
    assert run.ops["a"] == ["update"] and run.state("a").inputs["via"] == "10.2.2.2"
    assert run.result.resource_changes["read"] == 1


def test_unknown_stack(scenario: Scenario) -> None:
    scenario.stacks = Stacks()
    run = scenario.up(bare)
    assert not run.result.succeeded and 'unknown stack "other"' in run.errors


def test_without_a_reader_it_is_refused_by_name(scenario: Scenario) -> None:
    run = scenario.up(bare)
    assert not run.result.succeeded
    assert "stack 'other' cannot be read from here: set STACKYARD_PULUMI=cli" in run.errors


def test_destroy_forgets_the_reference(scenario: Scenario) -> None:
    scenario.stacks = Stacks(other={"address": "10.1.1.1"})
    scenario.up(program())
    run = scenario.destroy()
    assert run.result.succeeded, run.errors
    assert not run.result.snapshot.resources


def test_stash_keeps_its_first_value(scenario: Scenario) -> None:
    def stashing(value: str) -> Any:
        def inner() -> None:
            pulumi.export("kept", pulumi.Stash("s", input=value).output)

        return inner

    first = scenario.up(stashing("one"))
    assert first.result.succeeded, first.errors
    assert first.result.outputs == {"kept": "one"}
    run = scenario.up(stashing("two"))
    assert run.result.succeeded, run.errors
    assert run.ops["s"] == ["update"] and run.result.outputs == {"kept": "one"}
