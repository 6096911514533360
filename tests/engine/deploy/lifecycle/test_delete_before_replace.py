"""Replacement, delete first, and the dependents it takes along."""

from __future__ import annotations

from typing import Any

import pulumi

from tests.fakes.scenario import Scenario, Thing


def chain(slot: str) -> Any:
    """`b` would be replaced by a change of `a`, `c` only updated, `d` depends on nothing."""

    def program() -> None:
        a = Thing("a", {"slot": slot})
        b = Thing("b", {"kind": a.address})
        Thing("c", {"peer": b.address})
        Thing("d")

    return program


def test_dependents_that_must_go_are_deleted_first(scenario: Scenario) -> None:
    scenario.up(chain("1"))
    run = scenario.up(chain("2"))

    assert run.result.succeeded, run.errors
    assert run.ops["a"] == ["delete-replaced", "replace", "create-replacement"]
    assert run.ops["b"] == ["delete-replaced", "replace", "create-replacement"]
    assert run.ops["c"] == ["update"] and run.ops["d"] == ["same"]
    assert run.order.index(("delete-replaced", "b")) < run.order.index(("delete-replaced", "a"))
    assert run.result.resource_changes == {"replace": 2, "same": 2, "update": 1}
    b = run.metadata("::b")
    assert "keys" not in b[1] and b[2]["keys"] == ["kind"]
    assert len(scenario.cloud.things) == 4
    assert not any(s.pending_replacement or s.delete for s in run.result.snapshot.resources)


def test_pending_replacement_when_the_create_fails(scenario: Scenario) -> None:
    scenario.up(chain("1"))
    scenario.cloud.fail("create", "a")
    failed = scenario.up(chain("2"))
    assert not failed.result.succeeded
    assert failed.state("a").pending_replacement and failed.state("b").pending_replacement
    assert not scenario.cloud.made("a") and not scenario.cloud.made("b")

    again = scenario.up(chain("2"))
    assert again.result.succeeded, again.errors
    assert again.ops["a"] == ["replace", "create-replacement"], "it is not deleted twice"
    assert scenario.cloud.methods("a").count("delete") == 1
    assert not any(s.pending_replacement for s in again.result.snapshot.resources)
    assert len(scenario.cloud.things) == 4


def test_pending_replacement_is_dropped_when_the_program_no_longer_wants_it(scenario: Scenario) -> None:
    scenario.up(chain("1"))
    scenario.cloud.fail("create", "a")
    scenario.up(chain("2"))
    run = scenario.up(lambda: None)
    assert run.result.succeeded and run.ops["a"] == ["remove-pending-replace"]
    assert not scenario.cloud.things


def test_option_overrides_the_provider(scenario: Scenario) -> None:
    def program(kind: str, slot: str) -> Any:
        def inner() -> None:
            Thing("first", {"kind": kind}, pulumi.ResourceOptions(delete_before_replace=True))
            Thing("later", {"slot": slot}, pulumi.ResourceOptions(delete_before_replace=False))

        return inner

    scenario.up(program("x", "1"))
    run = scenario.up(program("y", "2"))
    assert run.ops["first"] == ["delete-replaced", "replace", "create-replacement"]
    assert run.ops["later"] == ["create-replacement", "replace", "delete-replaced"]


def test_protected_dependent_stops_the_replacement(scenario: Scenario) -> None:
    def program(slot: str) -> Any:
        def inner() -> None:
            a = Thing("a", {"slot": slot})
            Thing("b", {"kind": a.address}, pulumi.ResourceOptions(protect=True))

        return inner

    scenario.up(program("1"))
    run = scenario.up(program("2"))
    assert not run.result.succeeded
    assert 'unable to replace resource "urn:pulumi:dev::lab::fake:index:Thing::b" as part of replacing' in run.errors
    assert len(scenario.cloud.things) == 2


def test_deleted_with_is_not_deleted_twice(scenario: Scenario) -> None:
    def program(slot: str) -> Any:
        def inner() -> None:
            a = Thing("a", {"slot": slot})
            Thing("b", {}, pulumi.ResourceOptions(deleted_with=a))

        return inner

    scenario.up(program("1"))
    run = scenario.up(program("2"))
    assert run.result.succeeded, run.errors
    assert run.ops["b"] == ["delete-replaced", "replace", "create-replacement"]
    assert "delete" not in scenario.cloud.methods("b"), "deleting a takes it along"
