"""`--target`, `--exclude`, `--replace` and their dependents, in every kind of update."""

from __future__ import annotations

from typing import Any

import pulumi
import pytest

from engine.deploy.targets import UrnPatterns
from tests.fakes.scenario import Group, Scenario, Thing

PREFIX = "urn:pulumi:dev::lab::fake:index:Thing::"
A, B, C = f"{PREFIX}a", f"{PREFIX}b", f"{PREFIX}c"


def chain(size: int = 1, names: str = "abc", kind: str = "x") -> Any:
    """a ← b ← c by property, as far as they are in `names`."""

    def inner() -> None:
        address: Any = "none"
        for name in names:
            address = Thing(name, {"size": size, "kind": kind, "via": address}).address

    return inner


@pytest.mark.parametrize(
    ("pattern", "urn", "matches"),
    [
        (A, A, True),
        (A, B, False),
        (f"{PREFIX}*", A, True),
        ("urn:pulumi:dev::*::a", A, False),
        ("urn:pulumi:dev::**::a", A, True),
        ("**Thing::*", A, True),
        ("**Other::*", A, False),
    ],
)
def test_patterns(pattern: str, urn: str, matches: bool) -> None:
    assert (urn in UrnPatterns([pattern])) is matches


def test_only_the_target_is_updated(scenario: Scenario) -> None:
    scenario.up(chain(1))
    run = scenario.up(chain(2), targets=(B,))
    assert run.result.succeeded, run.errors
    assert (run.ops["a"], run.ops["b"], run.ops["c"]) == (["same"], ["update"], ["same"])
    assert run.state("a").inputs["size"] == 1 and run.state("b").inputs["size"] == 2
    assert scenario.cloud.methods("a").count("check") == 1, "what is left out is not checked"


def test_target_dependents(scenario: Scenario) -> None:
    scenario.up(chain(1))
    run = scenario.up(chain(2), targets=(B,), target_dependents=True)
    assert (run.ops["a"], run.ops["b"], run.ops["c"]) == (["same"], ["update"], ["update"])


def test_exclude(scenario: Scenario) -> None:
    scenario.up(chain(1))
    run = scenario.up(chain(2), excludes=(B,))
    assert (run.ops["a"], run.ops["b"], run.ops["c"]) == (["update"], ["same"], ["update"])
    run = scenario.up(chain(3), excludes=(B,), exclude_dependents=True)
    assert (run.ops["a"], run.ops["b"], run.ops["c"]) == (["update"], ["same"], ["same"])


def test_untargeted_create_is_skipped(scenario: Scenario) -> None:
    scenario.up(chain(1, "a"))
    run = scenario.up(lambda: (Thing("b"), Thing("c"), None)[2], targets=(B,))
    assert run.result.succeeded, run.errors
    assert run.ops["c"] == ["same"] and not run.has("c")
    assert run.ops["b"] == ["create"] and run.has("b")
    assert run.ops["a"] == ["same"] and run.has("a"), "what the program no longer names is no target either"


def test_target_that_needs_a_skipped_create(scenario: Scenario) -> None:
    run = scenario.up(chain(1, "ab"), targets=(B,))
    assert not run.result.succeeded
    assert f"Resource '{B}' depends on '{A}' which was was not specified in --target list." in run.errors
    assert not scenario.cloud.things
    preview = scenario.preview(chain(1, "abc"), targets=(B, C))
    assert not preview.result.succeeded and preview.ops["c"] == ["create"], "a preview goes on"


def test_skipped_component_takes_its_outputs_along(scenario: Scenario) -> None:
    def program() -> None:
        group = Group("g")
        group.register_outputs({"x": 1})
        Thing("b")

    run = scenario.up(program, targets=(B,))
    assert run.result.succeeded, run.errors
    assert not run.has("g") and run.has("b")


def test_unknown_target(scenario: Scenario) -> None:
    run = scenario.up(chain(1, "a"), targets=(A, f"{PREFIX}typo"))
    assert not run.result.succeeded and run.has("a")
    assert f"Target '{PREFIX}typo' could not be found in the stack." in run.errors


def test_targeted_destroy_needs_the_dependents(scenario: Scenario) -> None:
    scenario.up(chain(1))
    run = scenario.destroy(targets=(B,))
    assert not run.result.succeeded and run.has("b")
    assert f"Resource '{C}' will be destroyed but was not specified in --target list." in run.errors

    run = scenario.destroy(targets=(B,), target_dependents=True)
    assert run.result.succeeded, run.errors
    assert run.has("a") and not run.has("b") and not run.has("c")


def test_destroy_keeps_what_the_excluded_needs(scenario: Scenario) -> None:
    scenario.up(chain(1))
    run = scenario.destroy(excludes=(B,))
    assert run.result.succeeded, run.errors
    assert run.has("a") and run.has("b") and not run.has("c")


def test_children_go_with_a_targeted_parent(scenario: Scenario) -> None:
    def program() -> None:
        group = Group("g")
        Thing("b", {}, pulumi.ResourceOptions(parent=group))

    scenario.up(program)
    run = scenario.destroy(targets=("urn:pulumi:dev::lab::fake:index:Group::g",), target_dependents=True)
    assert run.result.succeeded, run.errors
    assert not run.has("b") and not run.has("g") and not scenario.cloud.things


def test_targeted_refresh(scenario: Scenario) -> None:
    scenario.up(chain(1))
    for thing in scenario.cloud.things.values():
        thing.properties["size"] = 7
    run = scenario.refresh(targets=(B,))
    assert [run.state(n).outputs["size"] for n in "abc"] == [1, 7, 1]
    run = scenario.refresh(excludes=(C,))
    assert [run.state(n).outputs["size"] for n in "abc"] == [7, 7, 1]
    assert not scenario.refresh(targets=(f"{PREFIX}typo",)).result.succeeded


def test_replace(scenario: Scenario) -> None:
    scenario.up(chain(1, "ab"))
    run = scenario.up(chain(1, "ab"), replace_targets=(A,))
    assert run.result.succeeded, run.errors
    assert run.ops["a"] == ["create-replacement", "replace", "delete-replaced"]
    assert run.metadata("::a")[0]["keys"] == ["id"]
    assert run.ops["b"] == ["update"], "it uses the new address"


def test_replace_names_something_unknown(scenario: Scenario) -> None:
    scenario.up(chain(1, "a"))
    run = scenario.up(chain(2, "a"), replace_targets=(f"{PREFIX}typo",))
    assert not run.result.succeeded and "could not be found in the stack" in run.errors
    assert run.state("a").inputs["size"] == 1


def test_changed_provider_of_what_is_left_out(scenario: Scenario) -> None:
    def program(version: str) -> Any:
        return lambda: (Thing("a", {}, pulumi.ResourceOptions(version=version)), Thing("b"), None)[2]

    scenario.up(program("1.2.3"))
    run = scenario.up(program("2.0.0"), targets=(B,))
    assert run.result.succeeded or "change of providers mixed with --target" in run.errors
