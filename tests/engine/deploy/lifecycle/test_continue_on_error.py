"""`--continue-on-error`: what does not depend on a failure goes on."""

from __future__ import annotations

from typing import Any

import pulumi

from tests.fakes.scenario import Scenario, Thing


def program(size: int = 1, names: str = "abcd") -> Any:
    """b uses a's address, c depends on b; d stands alone."""

    def inner() -> None:
        made: dict[str, Thing] = {}
        for name in names:
            via = {"via": made["a"].address} if name == "b" else {}
            after = [made["b"]] if name == "c" and "b" in made else []
            made[name] = Thing(name, {"size": size, **via}, pulumi.ResourceOptions(depends_on=after))

    return inner


def test_failed_create(scenario: Scenario) -> None:
    scenario.cloud.fail("create", "a")
    run = scenario.up(program(), continue_on_error=True)

    assert not run.result.succeeded
    assert run.has("d") and not any(run.has(n) for n in "abc")
    assert "create" not in scenario.cloud.methods("b") and "create" not in scenario.cloud.methods("c")
    assert run.errors.count("the cloud said no") == 1

    again = scenario.up(program())
    assert again.result.succeeded, again.errors
    assert again.ops["d"] == ["same"] and all(again.has(n) for n in "abcd")


def test_failed_update(scenario: Scenario) -> None:
    scenario.up(program(1))
    scenario.cloud.fail("update", "a")
    run = scenario.up(program(2), continue_on_error=True)

    assert not run.result.succeeded
    assert [run.state(n).inputs["size"] for n in "abcd"] == [1, 1, 1, 2]
    assert len(scenario.cloud.things) == 4, "what was not reached is not deleted"


def test_failed_delete_keeps_what_it_needs(scenario: Scenario) -> None:
    scenario.up(program())
    scenario.cloud.fail("delete", "b")
    run = scenario.destroy(continue_on_error=True)

    assert not run.result.succeeded
    assert run.has("a") and run.has("b") and not run.has("c") and not run.has("d")
    assert scenario.destroy().result.succeeded and not scenario.cloud.things


def test_without_the_flag_the_first_failure_ends_the_update(scenario: Scenario) -> None:
    scenario.up(program(1))
    scenario.cloud.fail("delete", "d")
    run = scenario.destroy()
    assert not run.result.succeeded and run.has("a")


def test_failed_import(scenario: Scenario) -> None:
    def importing() -> None:
        Thing("a", {}, pulumi.ResourceOptions(import_="nope"))
        Thing("d")

    run = scenario.up(importing, continue_on_error=True)
    assert not run.result.succeeded and run.has("d") and not run.has("a")


def test_deletes_after_a_failed_create(scenario: Scenario) -> None:
    scenario.up(program(1, "ad"))
    scenario.cloud.fail("create", "c")
    run = scenario.up(program(1, "ac"), continue_on_error=True)
    assert not run.result.succeeded and not run.has("d") and run.has("a")
