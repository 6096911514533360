"""Functions of providers: `invoke`, in every kind of update."""

from __future__ import annotations

from typing import Any

import pulumi

from engine.deploy.property import Secret
from tests.fakes.scenario import Account, Program, Scenario, Thing

ECHO = "fake:index:echo"


def test_answer_and_its_secrets(scenario: Scenario) -> None:
    def program() -> None:
        result = pulumi.runtime.invoke_output(ECHO, {"text": "hello"})
        pulumi.export("echo", result.apply(lambda r: r["echo"]))
        pulumi.export("secret", result.apply(lambda r: r["secret"]))

    run = scenario.up(program)
    assert run.result.succeeded, run.errors
    assert run.result.outputs["echo"] in ("hello", Secret("hello"))
    assert run.result.outputs["secret"] == Secret("hush")


def test_failing_function_fails_the_program(scenario: Scenario) -> None:
    def program() -> None:
        pulumi.export("x", pulumi.runtime.invoke_output("fake:index:fails", {}))

    run = scenario.up(program)
    assert not run.result.succeeded and "the function failed" in run.errors


def test_previews_ask_as_well(scenario: Scenario) -> None:
    run = scenario.preview(lambda: pulumi.export("echo", pulumi.runtime.invoke(ECHO, {"text": "hi"}).value["echo"]))
    assert run.result.succeeded, run.errors
    assert run.result.outputs["echo"] == "hi"


def test_unknown_arguments_are_not_asked_about(scenario: Scenario) -> None:
    """In a preview; the update asks once the argument is known."""

    def program() -> None:
        a = Thing("a")
        result = pulumi.runtime.invoke_output(ECHO, {"text": a.address})
        Thing("b", {"heard": result.apply(lambda r: r["echo"])})

    run = scenario.preview(program)
    assert run.result.succeeded, run.errors
    run = scenario.up(program)
    assert run.result.succeeded, run.errors
    heard = run.state("b").inputs["heard"]
    assert heard == Secret(run.state("a").outputs["address"]) or heard == run.state("a").outputs["address"]
    assert list(run.state("b").property_dependencies["heard"]) == [run.state("a").urn]


def test_explicit_provider_answers(scenario: Scenario) -> None:
    def program() -> None:
        account = Account("acc", {"token": "t"})
        options = pulumi.InvokeOptions(provider=account)
        pulumi.export("echo", pulumi.runtime.invoke_output(ECHO, {"text": "x"}, options).apply(lambda r: r["echo"]))

    run = scenario.up(program)
    assert run.result.succeeded, run.errors
    assert scenario.cloud.configured == [{"token": "t"}]
    assert not run.has("default_1_2_3") and not run.has("default")


def test_parents_provider_answers(scenario: Scenario) -> None:
    def program() -> None:
        account = Account("acc", {"token": "t"})
        parent = Thing("a", {}, pulumi.ResourceOptions(provider=account))
        options = pulumi.InvokeOptions(parent=parent)
        pulumi.export("echo", pulumi.runtime.invoke_output(ECHO, {"text": "x"}, options).apply(lambda r: r["echo"]))

    run = scenario.up(program)
    assert run.result.succeeded, run.errors
    assert scenario.cloud.configured == [{"token": "t"}] and not run.has("default")


def test_default_provider_of_its_version(scenario: Scenario) -> None:
    def program() -> None:
        options = pulumi.InvokeOptions(version="1.2.3")
        pulumi.export("echo", pulumi.runtime.invoke(ECHO, {"text": "x"}, options).value["echo"])

    run = scenario.up(program)
    assert run.result.succeeded, run.errors
    assert run.has("default_1_2_3"), "the resources of that version share it"
    assert scenario.up(program).entries == []


def test_depends_on_waits(scenario: Scenario) -> None:
    seen: list[int] = []

    def program() -> None:
        a = Thing("a")
        options = pulumi.InvokeOutputOptions(depends_on=[a])

        def look(result: Any) -> Any:
            seen.append(len(scenario.cloud.made("a")))
            return result["echo"]

        pulumi.export("echo", pulumi.runtime.invoke_output(ECHO, {"text": "x"}, options).apply(look))

    run = scenario.up(program)
    assert run.result.succeeded, run.errors
    assert seen == [1]


def test_unknown_function_is_refused_by_name(scenario: Scenario) -> None:
    run = scenario.up(lambda: pulumi.export("x", pulumi.runtime.invoke("other:index:f", {}).value))
    assert not run.result.succeeded
    assert "no provider here knows the function other:index:f: set STACKYARD_PULUMI=cli" in run.errors


def test_disabled_default_provider(scenario: Scenario) -> None:
    scenario.config = {"pulumi:disable-default-providers": '["fake"]'}
    run = scenario.up(lambda: pulumi.export("x", pulumi.runtime.invoke(ECHO, {}).value))
    assert not run.result.succeeded and "Default provider for 'fake' disabled" in run.errors


def test_destroy_with_the_program_asks_too(scenario: Scenario) -> None:
    def program(text: str = "x") -> Program:
        return lambda: (Thing("a", {"heard": pulumi.runtime.invoke(ECHO, {"text": text}).value["echo"]}), None)[1]

    scenario.up(program())
    run = scenario.destroy(program("y"))
    assert run.result.succeeded, run.errors
    assert not scenario.cloud.things
