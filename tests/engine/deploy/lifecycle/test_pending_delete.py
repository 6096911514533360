"""Old copies that wait for deletion outlive failures and are deleted by whatever update comes next."""

from __future__ import annotations

from typing import Any

from tests.fakes.scenario import Run, Scenario, Thing


def program(kind: str, names: str = "a") -> Any:
    def inner() -> None:
        for name in names:
            Thing(name, {"kind": kind})

    return inner


def waiting(run: Run) -> list[str]:
    return [s.id for s in run.result.snapshot.resources if s.delete]


def fail_to_delete(scenario: Scenario) -> Run:
    scenario.up(program("x"))
    scenario.cloud.fail("delete", "a")
    run = scenario.up(program("y"))
    assert not run.result.succeeded and waiting(run) == ["id-1"]
    return run


def test_next_update_deletes_it(scenario: Scenario) -> None:
    fail_to_delete(scenario)
    run = scenario.up(program("y"))
    assert run.result.succeeded, run.errors
    assert run.ops["a"] == ["same", "delete-replaced"] and list(scenario.cloud.things) == ["id-2"]
    assert not waiting(run)


def test_several_copies_of_one_urn(scenario: Scenario) -> None:
    fail_to_delete(scenario)
    scenario.cloud.fail("delete", "a")
    scenario.cloud.fail("delete", "a")
    run = scenario.up(program("z"))
    assert not run.result.succeeded and sorted(waiting(run)) == ["id-1", "id-2"]
    run = scenario.up(program("z"))
    assert run.result.succeeded and list(scenario.cloud.things) == ["id-3"]


def test_destroy_deletes_all_copies(scenario: Scenario) -> None:
    fail_to_delete(scenario)
    run = scenario.destroy()
    assert run.result.succeeded, run.errors
    assert not scenario.cloud.things and not run.result.snapshot.resources


def test_refresh_reads_it_too(scenario: Scenario) -> None:
    fail_to_delete(scenario)
    del scenario.cloud.things["id-1"]
    run = scenario.refresh()
    assert run.result.succeeded, run.errors
    assert not waiting(run) and run.state("a").id == "id-2"


def test_targets_leave_it_alone(scenario: Scenario) -> None:
    fail_to_delete(scenario)
    run = scenario.up(program("y", "ab"), targets=("urn:pulumi:dev::lab::fake:index:Thing::b",))
    assert run.result.succeeded, run.errors
    assert waiting(run) == ["id-1"] and run.has("b")
