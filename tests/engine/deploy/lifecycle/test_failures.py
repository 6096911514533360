"""Programs and providers that fail: what stays, what is skipped, what is said."""

from __future__ import annotations

import asyncio
from typing import Any

import pulumi
import pytest

from tests.fakes.scenario import Scenario, Thing


def test_program_error_deletes_nothing(scenario: Scenario) -> None:
    def program(fail: bool) -> Any:
        def inner() -> None:
            Thing("a")
            pulumi.export("one", 1)
            if fail:
                raise ValueError("on purpose")
            Thing("b")
            pulumi.export("two", 2)

        return inner

    scenario.up(program(False))
    run = scenario.up(program(True))

    assert not run.result.succeeded
    assert "python inline source runtime error: on purpose" in run.errors
    assert "an unhandled error occurred: python inline source" in run.errors
    assert run.has("b") and len(scenario.cloud.things) == 2
    assert run.result.resource_changes == {"same": 2}
    assert run.result.outputs == {"one": 1, "two": 2}, "outputs the program did not reach stay"


def test_provider_error_skips_dependants_and_keeps_siblings(scenario: Scenario) -> None:
    def program() -> None:
        a = Thing("a")
        Thing("b", {"peer": a.address})
        Thing("c")

    scenario.cloud.fail("create", "a", "422 the size does not exist")
    # The sibling is under way when the failure comes, and ends well after it.
    scenario.cloud.gates["create", "c"] = asyncio.Event()

    def open_gate() -> None:
        scenario.engine.loop.call_later(0.05, scenario.cloud.gates["create", "c"].set)
        raise_error()

    raise_error = scenario.cloud.script["create", "a"][0]
    scenario.cloud.script["create", "a"] = [open_gate]
    run = scenario.up(program)

    assert not run.result.succeeded and run.result.message == "update failed"
    assert not run.has("a") and not run.has("b")
    assert not run.result.snapshot.pending_operations
    assert run.has("c") == ("c" in run.ops)
    assert "422 the size does not exist" in run.errors and "monitor has terminated" not in run.errors
    failed = run.metadata("::a", "resOpFailedEvent")
    assert failed[0]["op"] == "create"
    again = scenario.up(program)
    assert again.result.succeeded and len(scenario.cloud.things) == 3


def test_partial_create_is_kept_with_its_errors(scenario: Scenario) -> None:
    def program(broken: bool) -> Any:
        def inner() -> None:
            a = Thing("a", {"broken": broken})
            Thing("b", {"peer": a.address})

        return inner

    run = scenario.up(program(True))
    assert not run.result.succeeded
    state = run.state("a")
    assert state.id == "id-1" and state.init_errors == ("it never became ready",)
    assert "1 error occurred:\n\t* it never became ready" in run.errors
    assert not run.has("b")
    failed = [e["resOpFailedEvent"] for e in run.events if "resOpFailedEvent" in e]
    assert [e["status"] for e in failed] == [1]

    again = scenario.up(program(False))
    assert again.ops["a"] == ["update"] and again.state("a").init_errors == () and again.has("b")
    assert len(scenario.cloud.made("a")) == 1


def test_check_failure_names_the_property(scenario: Scenario) -> None:
    run = scenario.up(lambda: (Thing("a", {"forbidden": 1}), None)[1])
    assert not run.result.succeeded
    assert "fake:index:Thing resource 'a': property forbidden value {1} has a problem: it is forbidden" in run.errors


def test_duplicate_urn(scenario: Scenario) -> None:
    def program() -> None:
        Thing("a")
        Thing("a")

    run = scenario.up(program)
    assert not run.result.succeeded and "Duplicate resource URN" in run.errors
    assert len(scenario.cloud.made("a")) <= 1
    assert run.has("default_1_2_3")  # its provider is there before it is found out


def test_continue_on_error_goes_on_with_what_does_not_depend(scenario: Scenario) -> None:
    def program() -> None:
        a = Thing("a")
        Thing("b", {}, pulumi.ResourceOptions(depends_on=[a]))
        Thing("c")

    scenario.cloud.fail("create", "a")
    run = scenario.up(program, continue_on_error=True)
    assert not run.result.succeeded
    assert run.has("c") and not run.has("a") and not run.has("b")


def test_delete_failure_keeps_what_it_could_not_delete(scenario: Scenario) -> None:
    def program() -> None:
        a = Thing("a")
        Thing("b", {"peer": a.address})
        Thing("c")

    scenario.up(program)
    scenario.cloud.fail("delete", "b")
    run = scenario.destroy()
    assert not run.result.succeeded
    assert run.has("a") and run.has("b") and not run.has("c")
    assert scenario.destroy().result.succeeded and not scenario.cloud.things


def test_unsupported_features_are_refused_by_name(scenario: Scenario) -> None:
    options = pulumi.ResourceOptions(state_migrations=[lambda args: None])
    run = scenario.up(lambda: (Thing("a", {}, options), None)[1])
    assert not run.result.succeeded
    assert "does not support state migrations" in run.errors, "the SDK asks first, and says so itself"


def test_parallel_creates_and_their_limit(scenario: Scenario) -> None:
    def program() -> None:
        for n in range(8):
            Thing(f"t{n}")

    scenario.cloud.crowd = (3, asyncio.Event())
    run = scenario.up(program, parallel=3)
    assert run.result.succeeded, run.errors
    assert scenario.cloud.most_running == 3


def test_continue_on_error_in_deletes_keeps_what_is_still_needed(scenario: Scenario) -> None:
    def program() -> None:
        a = Thing("a")
        Thing("b", {"peer": a.address})
        Thing("c")

    scenario.up(program)
    scenario.cloud.fail("delete", "b")
    run = scenario.destroy(continue_on_error=True)
    assert not run.result.succeeded
    assert run.has("a") and run.has("b") and not run.has("c")


@pytest.mark.parametrize("method", ["check", "diff", "update", "read", "delete"])
def test_a_providers_bug_ends_the_update_with_its_words(scenario: Scenario, method: str) -> None:
    def program(size: int) -> Any:
        return lambda: (Thing("a", {"size": size}), None)[1]

    scenario.up(program(1))
    scenario.cloud.break_(method, "a", KeyError("oops"))
    run = {"read": scenario.refresh, "delete": scenario.destroy}.get(method, lambda: scenario.up(program(2)))()
    assert not run.result.succeeded and "KeyError: 'oops'" in run.errors
    assert scenario.up(program(2)).result.succeeded and len(scenario.cloud.things) == 1


def test_half_done_delete_keeps_the_state(scenario: Scenario) -> None:
    def program() -> None:
        Thing("a")

    before = scenario.up(program).state("a")
    scenario.cloud.fail_half_way("delete", "a")
    run = scenario.destroy()
    assert not run.result.succeeded and run.state("a") == before
    assert scenario.destroy().result.succeeded and not scenario.cloud.things
