"""Transforms of resources, of the stack and of invokes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pulumi

from engine.deploy.property import Secret
from tests.fakes.scenario import Group, Scenario, Thing

Args = pulumi.ResourceTransformArgs
Result = pulumi.ResourceTransformResult


def adding(key: str, value: Any, **options: Any) -> Callable[[Args], Result]:
    def transform(args: Args) -> Result:
        opts = pulumi.ResourceOptions.merge(args.opts, pulumi.ResourceOptions(**options))
        return Result({**args.props, key: value}, opts)

    return transform


def only_things(transform: Callable[[Args], Result]) -> Callable[[Args], Result | None]:
    return lambda args: transform(args) if args.type_ == "fake:index:Thing" else None


def test_own_parents_and_stack_in_this_order(scenario: Scenario) -> None:
    def appending(word: str) -> Any:
        def transform(args: Args) -> Result:
            return Result({**args.props, "order": args.props.get("order", "") + word}, args.opts)

        return only_things(transform)

    def program() -> None:
        pulumi.runtime.register_resource_transform(appending("stack"))
        group = Group("g", pulumi.ResourceOptions(transforms=[appending("parent ")]))
        Thing("a", {}, pulumi.ResourceOptions(parent=group, transforms=[appending("own ")]))
        Thing("b")

    run = scenario.up(program)
    assert run.result.succeeded, run.errors
    assert run.state("a").inputs["order"] == "own parent stack"
    assert run.state("b").inputs["order"] == "stack"
    again = scenario.up(program)
    assert again.entries == [], [e.op for e in again.entries]


def test_options(scenario: Scenario) -> None:
    def program() -> None:
        transform = adding("x", 1, protect=True, ignore_changes=["size"], additional_secret_outputs=["address"])
        Thing("a", {"size": 1}, pulumi.ResourceOptions(transforms=[transform]))

    run = scenario.up(program)
    assert run.result.succeeded, run.errors
    state = run.state("a")
    assert state.protect and list(state.ignore_changes) == ["size"]
    assert isinstance(state.outputs["address"], Secret) and state.inputs["x"] == 1


def test_dependencies_and_secrets_pass_through(scenario: Scenario) -> None:
    def program() -> None:
        a = Thing("a")
        props = {"via": a.address, "token": pulumi.Output.secret("t")}
        Thing("b", props, pulumi.ResourceOptions(transforms=[adding("x", 1)]))

    run = scenario.up(program)
    assert run.result.succeeded, run.errors
    b, a = run.state("b"), run.state("a")
    assert b.inputs["token"] == Secret("t") and b.inputs["via"] == "10.0.0.1"
    assert list(b.dependencies) == [a.urn] and list(b.property_dependencies["via"]) == [a.urn]
    preview = scenario.preview(program)
    assert preview.result.succeeded and preview.ops["b"] == ["same"]


def test_a_transform_may_bring_in_another_resource(scenario: Scenario) -> None:
    def program() -> None:
        a = Thing("a")
        Thing("b", {}, pulumi.ResourceOptions(transforms=[adding("via", a.address)]))

    preview = scenario.preview(program)
    assert preview.result.succeeded, preview.errors
    run = scenario.up(program)
    assert run.state("b").inputs["via"] == "10.0.0.1"


def test_none_changes_nothing(scenario: Scenario) -> None:
    def program() -> None:
        Thing("a", {"size": 1}, pulumi.ResourceOptions(transforms=[lambda args: None]))

    scenario.up(lambda: (Thing("a", {"size": 1}), None)[1])
    assert scenario.up(program).entries == []


def test_transform_that_raises_fails_the_program(scenario: Scenario) -> None:
    def failing(args: Args) -> Result:
        raise ValueError("a bad transform")

    def program() -> None:
        Thing("a", {}, pulumi.ResourceOptions(transforms=[failing]))

    run = scenario.up(program)
    assert not run.result.succeeded and "a bad transform" in run.errors and not run.has("a")


def test_invoke_transform(scenario: Scenario) -> None:
    def shouting(args: pulumi.InvokeTransformArgs) -> pulumi.InvokeTransformResult:
        return pulumi.InvokeTransformResult({**args.args, "text": args.args["text"] + "!"}, args.opts)

    def program() -> None:
        pulumi.runtime.register_invoke_transform(shouting)
        options = pulumi.InvokeOptions(version="1.2.3")
        pulumi.export("echo", pulumi.runtime.invoke("fake:index:echo", {"text": "hi"}, options).value["echo"])

    run = scenario.up(program)
    assert run.result.succeeded, run.errors
    assert run.result.outputs == {"echo": "hi!"}
