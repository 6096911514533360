"""Error hooks: functions of the program that say whether a failed operation is tried again."""

from __future__ import annotations

from typing import Any

import pulumi
import pytest

from tests.fakes.scenario import Program, Run, Scenario, Thing


def program(answers: list[Any], calls: list[pulumi.ErrorHookArgs] | None = None, size: int = 1, **more: Any) -> Program:
    """Thing `a` with an error hook that gives these answers in turn, then no."""

    def inner() -> None:
        def hook(args: pulumi.ErrorHookArgs) -> bool:
            if calls is not None:
                calls.append(args)
            answer = answers.pop(0) if answers else False
            if isinstance(answer, str):
                raise ValueError(answer)
            return bool(answer)

        hooks = pulumi.ResourceHookBinding(on_error=[pulumi.ErrorHook("again", hook)])
        Thing("a", {"size": size, **more}, pulumi.ResourceOptions(hooks=hooks))

    return inner


def warnings(run: Run) -> str:
    events = [e["diagnosticEvent"] for e in run.events if "diagnosticEvent" in e]
    return "\n".join(e["message"] for e in events if e["severity"] == "warning")


def test_create_is_tried_again(scenario: Scenario) -> None:
    calls: list[pulumi.ErrorHookArgs] = []
    scenario.cloud.fail("create", "a", "no capacity")
    scenario.cloud.fail("create", "a", "still no capacity")
    run = scenario.up(program([True, True], calls))
    assert run.result.succeeded, run.errors
    assert len(scenario.cloud.made("a")) == 1
    assert [(c.failed_operation, c.errors) for c in calls] == [
        ("create", ["no capacity"]),
        ("create", ["still no capacity", "no capacity"]),
    ]
    assert calls[0].new_inputs is not None and calls[0].new_inputs["size"] == 1 and not calls[0].old_inputs
    assert "retrying create due to on-error hook request (2/100)" in warnings(run)


def test_update_and_delete_are_tried_again(scenario: Scenario) -> None:
    scenario.up(program([]))
    scenario.cloud.fail("update", "a")
    calls: list[pulumi.ErrorHookArgs] = []
    run = scenario.up(program([True], calls, size=2))
    assert run.result.succeeded, run.errors
    assert calls[0].failed_operation == "update" and calls[0].old_outputs is not None
    scenario.cloud.fail("delete", "a")
    run = scenario.destroy(program([True], calls))
    assert run.result.succeeded, run.errors
    assert calls[1].failed_operation == "delete" and not scenario.cloud.things


def test_no_leaves_the_error(scenario: Scenario) -> None:
    scenario.cloud.fail("create", "a", "no capacity")
    run = scenario.up(program([False]))
    assert not run.result.succeeded and "no capacity" in run.errors
    assert not scenario.cloud.things and not run.result.snapshot.pending_operations


def test_hook_that_raises(scenario: Scenario) -> None:
    scenario.cloud.fail("create", "a", "no capacity")
    run = scenario.up(program(["a bad hook"]))
    assert not run.result.succeeded
    assert "no capacity" in run.errors
    assert 'error hooks execution failed: error hook "again" failed' in run.errors and "a bad hook" in run.errors


def test_half_made_resource_is_removed_before_the_next_try(scenario: Scenario) -> None:
    """Otherwise the first one would stay in the cloud and in nobody's state."""
    scenario.up(program([True], broken=True))
    assert scenario.cloud.created == 2
    assert [t.id for t in scenario.cloud.made("a")] == ["id-2"]


def test_half_made_resource_is_kept_when_the_hook_raises(scenario: Scenario) -> None:
    run = scenario.up(program(["a bad hook"], broken=True))
    assert not run.result.succeeded and "a bad hook" in run.errors
    assert run.state("a").id == scenario.cloud.made("a")[0].id and run.state("a").init_errors


def test_it_ends_some_time(scenario: Scenario) -> None:
    for _ in range(100):
        scenario.cloud.fail("create", "a", "no capacity")
    run = scenario.up(program([True] * 200))
    assert not run.result.succeeded
    assert "maximum number of error hook retries (100) reached" in warnings(run)
    assert scenario.cloud.methods("a").count("create") == 100


def test_destroy_without_the_program_says_what_failed(scenario: Scenario) -> None:
    scenario.up(program([]))
    scenario.cloud.fail("delete", "a", "it is locked")
    run = scenario.destroy()
    assert not run.result.succeeded
    assert "it is locked" in run.errors and 'error hook "again" was not registered' in run.errors
    assert scenario.destroy().result.succeeded


@pytest.mark.parametrize("when", ["before", "after"])
def test_all_hooks_are_asked(scenario: Scenario, when: str) -> None:
    """One yes is enough, wherever it stands."""
    asked: list[str] = []

    def inner() -> None:
        def hook(name: str, answer: bool) -> pulumi.ErrorHook:
            return pulumi.ErrorHook(name, lambda args: (asked.append(name), answer)[1])

        hooks = [hook("no", False), hook("yes", True)]
        binding = pulumi.ResourceHookBinding(on_error=hooks if when == "before" else hooks[::-1])
        Thing("a", {}, pulumi.ResourceOptions(hooks=binding))

    scenario.cloud.fail("create", "a")
    run = scenario.up(inner)
    assert run.result.succeeded, run.errors
    assert sorted(asked) == ["no", "yes"]
