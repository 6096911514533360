"""Destroy, without the program and with it (`--run-program`)."""

from __future__ import annotations

from typing import Any

import pulumi

from tests.fakes.scenario import Account, Group, Scenario, Thing


def program(names: str = "ab", calls: list[str] | None = None, token: str = "old") -> Any:
    def inner() -> None:
        def note(args: pulumi.ResourceHookArgs) -> None:
            (calls if calls is not None else []).append(args.name)

        account = Account("acc", {"token": token})
        group = Group("g")
        hooks = (
            pulumi.ResourceHookBinding(after_delete=[pulumi.ResourceHook("note", note)]) if calls is not None else None
        )
        for name in names:
            Thing(name, {}, pulumi.ResourceOptions(parent=group, provider=account, hooks=hooks))
        group.register_outputs({"x": 1})
        pulumi.export("x", 1)

    return inner


def test_everything_goes_in_order(scenario: Scenario) -> None:
    scenario.up(program())
    run = scenario.destroy()
    assert run.result.succeeded, run.errors
    assert not run.result.snapshot.resources and not scenario.cloud.things
    names = [name for _, name in run.order]
    assert names.index("a") < names.index("g") < names.index("lab-dev")
    assert run.result.resource_changes == {"delete": 5}


def test_nothing_to_destroy(scenario: Scenario) -> None:
    run = scenario.destroy()
    assert run.result.succeeded and run.entries == []


def test_with_the_program_its_hooks_run(scenario: Scenario) -> None:
    calls: list[str] = []
    scenario.up(program("ab", calls))
    run = scenario.destroy(program("ab", calls))
    assert run.result.succeeded, run.errors
    assert sorted(calls) == ["a", "b"] and not run.result.snapshot.resources and not scenario.cloud.things


def test_with_the_program_nothing_is_made(scenario: Scenario) -> None:
    scenario.up(program("a"))
    run = scenario.destroy(program("abc"))
    assert run.result.succeeded, run.errors
    assert "create" not in scenario.cloud.methods("b") and not run.result.snapshot.resources
    assert not scenario.cloud.things


def test_with_the_program_providers_get_fresh_configuration(scenario: Scenario) -> None:
    scenario.up(program("a", token="old"))
    run = scenario.destroy(program("a", token="new"))
    assert run.result.succeeded, run.errors
    assert scenario.cloud.configured[-1] == {"token": "new"} and not run.result.snapshot.resources


def test_failing_program_destroys_nothing(scenario: Scenario) -> None:
    def failing() -> None:
        raise ValueError("a bad program")

    scenario.up(program())
    run = scenario.destroy(failing)
    assert not run.result.succeeded and "a bad program" in run.errors and len(scenario.cloud.things) == 2


def test_preview_of_a_destroy_with_the_program_does_nothing(scenario: Scenario) -> None:
    before = scenario.up(program("a")).result.snapshot
    run = scenario.destroy(program("ab"), dry_run=True)
    assert run.result.succeeded, run.errors
    assert run.result.resource_changes["delete"] == 4
    assert run.result.snapshot == before and len(scenario.cloud.things) == 1
