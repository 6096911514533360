"""Protected resources are neither deleted nor replaced."""

from __future__ import annotations

from typing import Any

import pulumi

from tests.fakes.scenario import Scenario, Thing


def program(kind: str = "x", protect: bool = True) -> Any:
    def inner() -> None:
        Thing("a", {"kind": kind}, pulumi.ResourceOptions(protect=protect))

    return inner


def test_destroy_refuses(scenario: Scenario) -> None:
    scenario.up(program())
    run = scenario.destroy()

    assert not run.result.succeeded and run.result.message == "update failed"
    assert run.result.resource_changes == {}
    urn = "urn:pulumi:dev::lab::fake:index:Thing::a"
    assert run.errors.startswith(
        f'resource "{urn}" cannot be deleted\nbecause it is protected. To unprotect the resource, either remove the '
        "`protect` flag from the resource in your Pulumi program and run `pulumi up`, or use the command:\n"
        f"`pulumi state unprotect '{urn}'`"
    )
    assert "delete" not in scenario.cloud.methods("a") and run.has("a")


def test_replacement_refuses(scenario: Scenario) -> None:
    scenario.up(program("x"))
    run = scenario.up(program("y"))
    assert not run.result.succeeded and "marked for protection" in run.errors
    assert len(scenario.cloud.made("a")) == 1


def test_unprotect_and_replace_in_one_update(scenario: Scenario) -> None:
    scenario.up(program("x"))
    run = scenario.up(program("y", protect=False))
    assert run.result.succeeded and not run.state("a").protect


def test_protect_alone_is_a_same_that_is_written(scenario: Scenario) -> None:
    scenario.up(program(protect=False))
    run = scenario.up(program(protect=True))
    assert run.ops["a"] == ["same"] and run.state("a").protect
    assert [e.op for e in run.entries] == ["same"]
