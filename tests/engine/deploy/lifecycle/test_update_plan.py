"""Update plans: what a preview planned and nothing else, or the update stops."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pulumi
import pytest

from engine.deploy.checkpoint import CheckpointCodec
from engine.deploy.plan import Plan, PlanDiff, PlanViolation, check_diff, is_allowed
from engine.deploy.plan_file import PlanFileError, dump_plan, parse_plan
from engine.deploy.property import UNKNOWN, Secret
from engine.model.clock import SystemClock
from tests.fakes.folder import Folder
from tests.fakes.scenario import Group, Program, Run, Scenario, Thing


def things(**properties: dict[str, Any]) -> Program:
    """A program of independent things."""

    def program() -> None:
        for name, values in properties.items():
            Thing(name, values)

    return program


def planned(scenario: Scenario, program: Program, **options: Any) -> Plan:
    run = scenario.preview(program, generate_plan=True, **options)
    assert run.result.succeeded, run.errors
    assert run.result.plan is not None
    return run.result.plan


def refused(scenario: Scenario, program: Program, plan: Plan, **options: Any) -> Run:
    run = scenario.up(program, plan=plan, **options)
    assert not run.result.succeeded
    return run


def test_same_program_keeps_to_its_plan(scenario: Scenario) -> None:
    def program() -> None:
        group = Group("g")
        a = Thing("a", {"size": 1}, pulumi.ResourceOptions(parent=group))
        Thing("b", {"via": a.address, "kind": "x"})
        group.register_outputs({"address": a.address})
        pulumi.export("address", a.address)

    plan = planned(scenario, program)
    ops = {urn.rpartition("::")[2]: list(p.ops) for urn, p in plan.resources.items()}
    assert ops == {name: ["create"] for name in ("lab-dev", "default_1_2_3", "g", "a", "b")}
    run = scenario.up(program, plan=plan)
    assert run.result.succeeded, run.errors
    again = scenario.up(program, plan=plan)
    assert again.result.succeeded, "a same is less than a create"


def test_update_makes_the_planned_names(scenario: Scenario) -> None:
    program = things(a={})
    plan = planned(scenario, program)
    goal = next(p.goal for urn, p in plan.resources.items() if urn.endswith("::a"))
    assert goal is not None
    run = scenario.up(program, plan=plan)
    assert run.state("a").inputs["name"] == goal.input_diff.adds["name"]


def test_no_plan_unless_wanted(scenario: Scenario) -> None:
    assert scenario.preview(things(a={})).result.plan is None


def test_create_without_a_plan(scenario: Scenario) -> None:
    plan = planned(scenario, things(a={}))
    run = refused(scenario, things(a={}, b={}), plan)
    assert "create is not allowed by the plan: no steps were expected for this resource" in run.errors
    assert not scenario.cloud.made("b")


def test_delete_that_was_not_planned(scenario: Scenario) -> None:
    scenario.up(things(a={}, b={}))
    plan = planned(scenario, things(a={}, b={}))
    run = refused(scenario, things(a={}), plan)
    assert "delete is not allowed by the plan: this resource is constrained to same" in run.errors
    assert scenario.cloud.made("b")


def test_resource_unexpectedly_not_deleted(scenario: Scenario) -> None:
    scenario.up(things(a={}, b={}))
    plan = planned(scenario, things(a={}))
    run = refused(scenario, things(a={}, b={}), plan)
    assert "violates plan: resource unexpectedly not deleted" in run.errors
    assert scenario.cloud.made("b")


def test_delete_of_what_is_gone_is_not_missed(scenario: Scenario) -> None:
    scenario.up(things(a={}, b={}))
    plan = planned(scenario, things(a={}))
    scenario.up(things(a={}))
    run = scenario.up(things(a={}), plan=plan)
    assert run.result.succeeded, run.errors


def test_update_instead_of_same(scenario: Scenario) -> None:
    scenario.up(things(a={"size": 1}))
    plan = planned(scenario, things(a={"size": 1}))
    run = refused(scenario, things(a={"size": 2}), plan)
    assert "violates plan: properties changed: =~size[{2}]" in run.errors
    assert scenario.cloud.made("a")[0].properties["size"] == 1


def test_replace_instead_of_update(scenario: Scenario) -> None:
    scenario.up(things(a={"size": 1}))
    plan = planned(scenario, things(a={"size": 2}))
    run = refused(scenario, things(a={"size": 2, "kind": "y"}), plan)
    assert "violates plan: properties changed: =+kind[{y}]" in run.errors
    assert scenario.cloud.made("a")[0].properties["size"] == 1


def test_other_value_than_planned(scenario: Scenario) -> None:
    scenario.up(things(a={"size": 1}))
    plan = planned(scenario, things(a={"size": 2}))
    run = refused(scenario, things(a={"size": 3}), plan)
    assert "properties changed: ~~size[{2}!={3}]" in run.errors


def test_less_than_planned(scenario: Scenario) -> None:
    """An update may turn out to be a same, a replacement an update."""
    scenario.up(things(a={"size": 1}, b={"kind": "x"}))
    plan = planned(scenario, things(a={"size": 2}, b={"kind": "y"}))
    run = scenario.up(things(a={"size": 2}, b={"kind": "y"}))
    assert run.ops["b"] == ["create-replacement", "replace", "delete-replaced"]
    run = scenario.up(things(a={"size": 2}, b={"kind": "y"}), plan=plan)
    assert run.ops["a"] == ["same"]
    assert not run.result.succeeded, "the planned halves of the replacement never came"
    assert "expected resource operations for" in run.errors and "but none were seen" in run.errors


def test_fewer_resources(scenario: Scenario) -> None:
    plan = planned(scenario, things(a={}, b={}))
    run = refused(scenario, things(a={}), plan)
    assert "expected resource operations for urn:pulumi:dev::lab::fake:index:Thing::b but none were seen" in run.errors


def test_replacements_in_both_orders_keep_to_their_plan(scenario: Scenario) -> None:
    def program(slot: str, kind: str) -> Program:
        def inner() -> None:
            first = Thing("first", {"slot": slot})
            Thing("second", {"kind": first.address})
            Thing("other", {"kind": kind})

        return inner

    scenario.up(program("a", "x"))
    plan = planned(scenario, program("b", "y"))
    ops = {urn.rpartition("::")[2]: list(p.ops) for urn, p in plan.resources.items()}
    assert ops["first"] == ["delete-replaced", "replace", "create-replacement"]
    assert ops["second"] == ["delete-replaced", "replace", "create-replacement"]
    assert ops["other"] == ["create-replacement", "replace", "delete-replaced"]
    run = scenario.up(program("b", "y"), plan=plan)
    assert run.result.succeeded, run.errors


def test_unknown_in_the_plan_takes_any_value(scenario: Scenario) -> None:
    def program() -> None:
        Thing("b", {"via": Thing("a").address})

    scenario.up(things(a={}))
    plan = planned(scenario, lambda: (program(), Thing("c", {"via": Thing("d").address}), None)[2])
    run = scenario.up(lambda: (program(), Thing("c", {"via": Thing("d").address}), None)[2], plan=plan)
    assert run.result.succeeded, run.errors


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ({}, {"protect": True}, "protect changed (expected false)"),
        ({}, {"ignore_changes": ["size"]}, "ignoreChanges changed: added size"),
        ({"ignore_changes": ["size"]}, {}, "ignoreChanges changed: deleted size"),
        ({}, {"delete_before_replace": True}, "deleteBeforeReplace changed (expected no value)"),
        ({"delete_before_replace": True}, {}, "deleteBeforeReplace changed (expected true)"),
        ({}, {"additional_secret_outputs": ["x"]}, "additionalSecretOutputs changed: added x"),
        ({"custom_timeouts": pulumi.CustomTimeouts(create="5m")}, {}, "create timeout changed (expected 300)"),
    ],
)
def test_options_must_be_the_planned(
    scenario: Scenario, before: dict[str, Any], after: dict[str, Any], message: str
) -> None:
    def program(options: dict[str, Any]) -> Program:
        return lambda: (Thing("a", {"size": 1}, pulumi.ResourceOptions(**options)), None)[1]

    plan = planned(scenario, program(before))
    run = refused(scenario, program(after), plan)
    assert message in run.errors
    assert not scenario.cloud.things


def test_parent_and_dependencies_must_be_the_planned(scenario: Scenario) -> None:
    def program(depends: bool) -> Program:
        def inner() -> None:
            a = Thing("a")
            Thing("b", {}, pulumi.ResourceOptions(depends_on=[a] if depends else []))

        return inner

    plan = planned(scenario, program(False))
    run = refused(scenario, program(True), plan)
    assert "dependencies changed: added urn:pulumi:dev::lab::fake:index:Thing::a" in run.errors
    assert not scenario.cloud.made("b")


def test_stack_outputs_must_be_the_planned(scenario: Scenario) -> None:
    plan = planned(scenario, lambda: pulumi.export("x", "1"))
    run = refused(scenario, lambda: pulumi.export("x", "2"), plan)
    assert "resource violates plan: properties changed: ++x[{1}!={2}]" in run.errors


def test_violation_ends_the_update_even_with_continue_on_error(scenario: Scenario) -> None:
    def program(size: int) -> Program:
        def inner() -> None:
            a = Thing("a", {"size": size})
            Thing("b", {"via": a.id})

        return inner

    plan = planned(scenario, program(1))
    refused(scenario, program(2), plan, continue_on_error=True)
    assert not scenario.cloud.things


def test_violation_in_a_preview(scenario: Scenario) -> None:
    plan = planned(scenario, things(a={}))
    run = scenario.preview(things(a={}, b={}), plan=plan)
    assert not run.result.succeeded
    assert "create is not allowed by the plan" in run.errors


def test_import_keeps_to_its_plan(scenario: Scenario) -> None:
    scenario.up(things(x={"size": 1}))
    made = scenario.cloud.made("x")[0]

    def program() -> None:
        Thing("x", {"size": 1})
        Thing("y", {"size": 1, "name": made.properties["name"]}, pulumi.ResourceOptions(import_=made.id))

    plan = planned(scenario, program)
    ops = {urn.rpartition("::")[2]: list(p.ops) for urn, p in plan.resources.items()}
    assert ops["y"] == ["import", "same"]
    run = scenario.up(program, plan=plan)
    assert run.result.succeeded, run.errors


def test_targets_keep_to_their_plan(scenario: Scenario) -> None:
    urn = "urn:pulumi:dev::lab::fake:index:Thing::b"
    scenario.up(things(a={"size": 1}, b={"size": 1}, gone={}))
    program = things(a={"size": 2}, b={"size": 2}, new={})
    plan = planned(scenario, program, targets=(urn,))
    run = scenario.up(program, plan=plan, targets=(urn,))
    assert run.result.succeeded, run.errors
    run = refused(scenario, program, plan)
    assert "violates plan" in run.errors


@pytest.mark.parametrize(
    ("op", "planned_op", "allowed"),
    [
        ("same", "create", True),
        ("update", "create", False),
        ("same", "update", True),
        ("replace", "update", False),
        ("update", "replace", True),
        ("update", "create-replacement", True),
        ("delete", "delete", True),
        ("same", "delete", False),
        ("create", "same", False),
    ],
)
def test_constrained_to(op: str, planned_op: str, allowed: bool) -> None:
    assert is_allowed(op, planned_op) is allowed


@pytest.mark.parametrize(
    ("diff", "olds", "news", "message"),
    [
        (PlanDiff(adds={"a": 1}), {}, {"a": 1}, ""),
        (PlanDiff(adds={"a": 1}), {"a": 0}, {"a": 1}, ""),
        (PlanDiff(adds={"a": 1}), {"a": 1}, {"a": 1}, ""),
        (PlanDiff(adds={"a": 1}), {}, {}, "+-a[{1}]"),
        (PlanDiff(adds={"a": UNKNOWN}), {}, {}, ""),
        (PlanDiff(adds={"a": UNKNOWN}), {"a": 1}, {}, "+-a[output<string>{}]"),
        (PlanDiff(updates={"a": 1}), {"a": 0}, {"a": 1}, ""),
        (PlanDiff(updates={"a": 1}), {"a": 0}, {"a": 0}, "~=a[{1}!={0}]"),
        (PlanDiff(updates={"a": 1}), {}, {"a": 1}, "~+a[{1}!={1}]"),
        (PlanDiff(updates={"a": UNKNOWN}), {"a": 0}, {}, ""),
        (PlanDiff(updates={"a": 1}), {"a": 0}, {}, "~-a[{1}]"),
        (PlanDiff(deletes=["a"]), {"a": 0}, {}, ""),
        (PlanDiff(deletes=["a"]), {}, {}, ""),
        (PlanDiff(deletes=["a"]), {"a": 0}, {"a": 0}, "-=a[{0}]"),
        (PlanDiff(deletes=["a"]), {"a": 0}, {"a": 1}, "-~a[{1}]"),
        (PlanDiff(), {"a": 0}, {}, "=-a"),
        (PlanDiff(), {}, {"a": Secret("s")}, "=+a[{[secret]}]"),
        (PlanDiff(), {}, {"a": {"b": [True, 1.5, "x"]}}, "=+a[{map[b:{[{true} {1.5} {x}]}]}]"),
        (PlanDiff(adds={"a": {"b": UNKNOWN}}), {}, {"a": {}}, ""),
        (PlanDiff(adds={"a": {"b": 1}}), {}, {"a": {"b": 1, "c": 2}}, "++a[{map[b:{1}]}!={map[b:{1} c:{2}]}]"),
    ],
)
def test_check_diff(diff: PlanDiff, olds: dict[str, Any], news: dict[str, Any], message: str) -> None:
    try:
        check_diff(diff, olds, news)
    except PlanViolation as err:
        assert str(err) == f"properties changed: {message}"
    else:
        assert not message


def test_file_keeps_the_plan(scenario: Scenario) -> None:
    def program() -> None:
        a = Thing("a", {"tags": {"x": [1, True]}})
        alias = pulumi.Alias(name="old")
        options = pulumi.ResourceOptions(aliases=[alias], custom_timeouts=pulumi.CustomTimeouts(delete="1m"))
        Thing("b", {"via": a.address}, options)

    plan = planned(scenario, program)
    data = json.loads(json.dumps(dump_plan(plan, CheckpointCodec(None), config={}, now=SystemClock().now())))
    again = parse_plan(json.dumps(data), "plan.json", CheckpointCodec(None), stack="dev", project="lab")
    run = scenario.up(program, plan=again)
    assert run.result.succeeded, run.errors


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not complete JSON"),
        ("[]", "is not an update plan"),
        ("{}", "is not an update plan"),
        ('{"manifest": {}, "resourcePlans": {"urn:pulumi:x::lab::t:t:T::a": {}}}', "is the plan of another stack"),
        ('{"manifest": {}, "resourcePlans": {"urn:pulumi:dev::lab::t:t:T::a": {"goal": {}}}}', "breaks the format"),
        ('{"manifest": {}, "resourcePlans": {"urn:pulumi:dev::lab::t:t:T::a": {"seed": "?"}}}', "breaks the format"),
        ('{"manifest": {}, "resourcePlans": {"urn:pulumi:dev::lab::t:t:T::a": []}}', "breaks the format"),
    ],
)
def test_unusable_file(text: str, message: str) -> None:
    with pytest.raises(PlanFileError, match=message):
        parse_plan(text, "plan.json", CheckpointCodec(None), stack="dev", project="lab")


PROGRAM = """
import pulumi
from thing import Thing
config = pulumi.Config()
a = Thing("a", {"token": config.require_secret("token"), "size": config.get_int("size") or 1})
pulumi.export("address", a.address)
"""


def test_command_line(started: Callable[..., Folder]) -> None:
    folder = started(PROGRAM)
    folder.run("config", "set", "--secret", "token", "hush", "--stack", "dev")
    shown = folder.run("preview", "--save-plan", "plan.json", "--stack", "dev")
    assert "Update plan written to 'plan.json'" in shown
    text = (folder.work / "plan.json").read_text()
    assert "hush" not in text and "ciphertext" in text
    folder.run("config", "set", "size", "2", "--stack", "dev")
    message = folder.up_fails("--plan", "plan.json")
    assert "properties changed: ++size[{1}!={2}]" in message
    assert not folder.cloud.things
    folder.run("config", "rm", "size", "--stack", "dev")
    folder.run("up", "--yes", "--plan", "plan.json", "--stack", "dev")
    assert folder.cloud.made("a")


def test_unusable_file_does_nothing(started: Callable[..., Folder]) -> None:
    folder = started(PROGRAM)
    assert "cannot read the plan file" in folder.up_fails("--plan", "missing.json")
    (folder.work / "plan.json").write_text("{")
    assert "is not complete JSON" in folder.up_fails("--plan", "plan.json")
    assert not folder.cloud.calls


def test_strict_needs_a_preview(started: Callable[..., Folder]) -> None:
    folder = started("from thing import Thing\nThing('a')\n")
    assert "--strict cannot be used with --skip-preview" in folder.up_fails("--strict")
    folder.run("up", "--yes", "--strict", "--stack", "dev")
    assert folder.cloud.made("a")


def test_strict_holds_the_update_to_its_preview(started: Callable[..., Folder]) -> None:
    folder = started("import secrets\nfrom thing import Thing\nThing('a', {'size': secrets.token_hex(4)})\n")
    with pytest.raises(Exception, match="properties changed"):
        folder.run("up", "--yes", "--strict", "--stack", "dev")
    assert not folder.cloud.things
