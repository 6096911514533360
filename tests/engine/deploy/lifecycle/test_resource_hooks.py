"""Hooks the program runs before and after steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pulumi
import pytest

from engine.deploy.checkpoint import CheckpointCodec
from tests.fakes.scenario import Group, Scenario, Thing

Calls = list[tuple[str, pulumi.ResourceHookArgs]]


def binding(calls: Calls, *kinds: str, error: str = "", **options: Any) -> pulumi.ResourceHookBinding:
    """Hooks of these kinds that note their calls, or raise."""

    def hook(kind: str) -> pulumi.ResourceHook:
        def call(args: pulumi.ResourceHookArgs) -> None:
            calls.append((kind, args))
            if error:
                raise ValueError(error)

        return pulumi.ResourceHook(f"note-{kind}", call, pulumi.ResourceHookOptions(**options) if options else None)

    return pulumi.ResourceHookBinding(**{kind: [hook(kind)] for kind in kinds})


def program(make: Callable[[], pulumi.ResourceHookBinding], names: str = "a", **props: Any) -> Callable[[], None]:
    def inner() -> None:
        hooks = make()
        for name in names:
            Thing(name, props, pulumi.ResourceOptions(hooks=hooks))

    return inner


def test_create_and_update(scenario: Scenario) -> None:
    calls: Calls = []

    def make() -> pulumi.ResourceHookBinding:
        return binding(calls, "before_create", "after_create", "before_update", "after_update")

    run = scenario.up(program(make, size=1))
    assert run.result.succeeded, run.errors
    (before, b), (after, a) = calls
    assert (before, after) == ("before_create", "after_create")
    assert b.name == a.name == "a" and b.new_inputs["size"] == 1 and b.new_outputs is None
    assert a.id == run.state("a").id and a.new_outputs["address"] == "10.0.0.1" and a.old_inputs is None
    assert run.state("a").hooks["BeforeCreate"] == ("note-before_create",)

    calls.clear()
    assert scenario.up(program(make, size=1)).entries == [] and not calls
    scenario.up(program(make, size=2))
    assert [kind for kind, _ in calls] == ["before_update", "after_update"]
    args = calls[1][1]
    assert args.old_inputs["size"] == 1 and args.new_inputs["size"] == 2 and args.new_outputs["size"] == 2


def test_delete_of_what_the_program_dropped(scenario: Scenario) -> None:
    calls: Calls = []

    def keeping(names: str) -> Callable[[], None]:
        def inner() -> None:
            hooks = binding(calls, "before_delete", "after_delete")
            Thing("a", {}, pulumi.ResourceOptions(hooks=hooks))
            if "b" in names:
                Thing("b", {}, pulumi.ResourceOptions(hooks=hooks))

        return inner

    scenario.up(keeping("ab"))
    run = scenario.up(keeping("a"))
    assert run.result.succeeded, run.errors
    assert [(kind, args.name) for kind, args in calls] == [("before_delete", "b"), ("after_delete", "b")]
    assert calls[0][1].old_outputs["address"].startswith("10.0.0.") and not run.has("b")


def test_destroy_without_the_program_cannot_run_them(scenario: Scenario) -> None:
    scenario.up(program(lambda: binding([], "before_delete")))
    run = scenario.destroy()
    assert not run.result.succeeded and 'hook "note-before_delete" was not registered' in run.errors
    assert run.has("a") and not run.result.snapshot.pending_operations


def test_before_hook_that_raises_stops_the_step(scenario: Scenario) -> None:
    run = scenario.up(program(lambda: binding([], "before_create", error="not now")))
    assert not run.result.succeeded and 'before hook "note-before_create" failed: not now' in run.errors
    assert not scenario.cloud.things and not run.result.snapshot.pending_operations


def test_after_hook_that_raises_fails_the_update_only(scenario: Scenario) -> None:
    run = scenario.up(program(lambda: binding([], "after_create", error="not now"), names="ab"))
    assert not run.result.succeeded and 'after hook "note-after_create" failed: not now' in run.errors
    assert run.has("a") and run.has("b") and len(scenario.cloud.things) == 2


def test_ignored_errors_are_warnings(scenario: Scenario) -> None:
    run = scenario.up(program(lambda: binding([], "before_create", error="not now", ignore_errors=True)))
    assert run.result.succeeded, run.errors
    warnings = [e["diagnosticEvent"] for e in run.events if "diagnosticEvent" in e]
    assert any("not now" in w["message"] and w["severity"] == "warning" for w in warnings)


@pytest.mark.parametrize("on_dry_run", [False, True])
def test_previews(scenario: Scenario, on_dry_run: bool) -> None:
    calls: Calls = []
    run = scenario.preview(program(lambda: binding(calls, "before_create", "after_create", on_dry_run=on_dry_run)))
    assert run.result.succeeded, run.errors
    assert [kind for kind, _ in calls] == (["before_create", "after_create"] if on_dry_run else [])


def test_component_hooks_run_with_its_outputs(scenario: Scenario) -> None:
    calls: Calls = []

    def inner() -> None:
        group = Group("g", pulumi.ResourceOptions(hooks=binding(calls, "before_create", "after_create")))
        group.register_outputs({"x": 1})

    run = scenario.up(inner)
    assert run.result.succeeded, run.errors
    assert [kind for kind, _ in calls] == ["before_create", "after_create"]
    assert calls[1][1].new_outputs == {"x": 1}


def test_hooks_survive_the_checkpoint(scenario: Scenario) -> None:
    run = scenario.up(program(lambda: binding([], "after_delete")))
    state = run.state("a")
    codec = CheckpointCodec(None)
    stored = codec.dump_resource(state)
    assert stored["resourceHooks"] == {"AfterDelete": ["note-after_delete"]}
    assert codec.load_resource(stored).hooks == {"AfterDelete": ("note-after_delete",)}
