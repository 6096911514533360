"""What an interrupted update left is settled by asking the provider: nothing is forgotten, nothing is made twice."""

from __future__ import annotations

from typing import Any

import pytest

from engine.deploy.journal import replay
from tests.fakes.scenario import Scenario, Thing


class Killed(RuntimeError):
    """Stands for an answer that never came."""


def program(kind: str = "x", **props: Any) -> Any:
    def inner() -> None:
        Thing("a", {"kind": kind, **props})

    return inner


def test_create_that_happened_is_adopted(scenario: Scenario) -> None:
    scenario.cloud.break_("created", "a", Killed("no answer"))
    failed = scenario.up(program())
    assert not failed.result.succeeded and "Killed: no answer" in failed.errors
    assert [p.type for p in failed.result.snapshot.pending_operations] == ["creating"]

    run = scenario.up(program())
    assert run.result.succeeded, run.errors
    assert run.ops["a"] == ["same"] and run.state("a").id == "id-1"
    assert scenario.cloud.methods("a").count("create") == 1 and len(scenario.cloud.things) == 1
    assert not run.result.snapshot.pending_operations


def test_create_that_did_not_happen_is_dropped_and_done_again(scenario: Scenario) -> None:
    scenario.cloud.break_("create", "a", Killed("no answer"))
    scenario.up(program())
    run = scenario.up(program())
    assert run.result.succeeded and run.ops["a"] == ["create"] and len(scenario.cloud.things) == 1


@pytest.mark.parametrize("settle", ["refresh", "destroy"])
def test_refresh_and_destroy_settle_too(scenario: Scenario, settle: str) -> None:
    scenario.cloud.break_("created", "a", Killed("no answer"))
    scenario.up(program())
    run = scenario.refresh() if settle == "refresh" else scenario.destroy()
    assert run.result.succeeded, run.errors
    assert not run.result.snapshot.pending_operations
    assert run.has("a") == bool(scenario.cloud.things) == (settle == "refresh")


def test_lookup_that_cannot_answer_stops_the_update(scenario: Scenario) -> None:
    scenario.cloud.break_("created", "a", Killed("no answer"))
    scenario.up(program())
    scenario.cloud.can_look_up = False
    run = scenario.up(program())
    assert not run.result.succeeded
    assert "interrupted while creating" in run.errors and "cannot be looked up" in run.errors
    assert "stack export" in run.errors, "it says what to do"
    assert [p.type for p in run.result.snapshot.pending_operations] == ["creating"], "it is not forgotten"
    assert scenario.cloud.methods("a").count("create") == 1, "and not made twice"


def test_preview_warns_and_settles_nothing(scenario: Scenario) -> None:
    scenario.cloud.break_("created", "a", Killed("no answer"))
    scenario.up(program())
    run = scenario.preview(program())
    warnings = [e["diagnosticEvent"]["message"] for e in run.events if "diagnosticEvent" in e]
    assert any("interrupted while creating" in w for w in warnings)
    assert "lookup" not in scenario.cloud.methods("a")


@pytest.mark.parametrize("moment", ["update", "updated"])
def test_update_is_read_anew(scenario: Scenario, moment: str) -> None:
    scenario.up(program(size=1))
    scenario.cloud.break_(moment, "a", Killed("no answer"))
    failed = scenario.up(program(size=2))
    assert [p.type for p in failed.result.snapshot.pending_operations] == ["updating"]
    run = scenario.up(program(size=2))
    assert run.ops["a"] == (["update"] if moment == "update" else ["same"])
    assert run.state("a").outputs["size"] == 2 and not run.result.snapshot.pending_operations


@pytest.mark.parametrize("moment", ["delete", "deleted"])
def test_delete_is_asked_about(scenario: Scenario, moment: str) -> None:
    scenario.up(program())
    scenario.cloud.break_(moment, "a", Killed("no answer"))
    failed = scenario.destroy()
    assert [p.type for p in failed.result.snapshot.pending_operations] == ["deleting"]
    assert failed.has("a")
    run = scenario.destroy()
    assert run.result.succeeded and not scenario.cloud.things and not run.result.snapshot.resources


@pytest.mark.parametrize("moment", ["create", "created"])
def test_interrupted_replacement(scenario: Scenario, moment: str) -> None:
    scenario.up(program("x"))
    scenario.cloud.break_(moment, "a", Killed("no answer"))
    scenario.up(program("y"))
    run = scenario.up(program("y"))
    assert run.result.succeeded, run.errors
    assert [t.properties["kind"] for t in scenario.cloud.things.values()] == ["y"]
    assert scenario.cloud.methods("a").count("created") == 2


def test_journal_alone_brings_the_pending_create_back(scenario: Scenario) -> None:
    """The process dies: only the journal is left of the update."""
    base = scenario.snapshot
    scenario.cloud.break_("created", "a", Killed("no answer"))
    failed = scenario.up(program())
    begin = next(n for n, e in enumerate(failed.entries) if e.kind == "begin")
    scenario.snapshot = replay(base, failed.entries[: begin + 1])
    run = scenario.up(program())
    assert run.result.succeeded and run.state("a").id == "id-1" and len(scenario.cloud.things) == 1


def test_lookup_with_a_bug_leaves_the_question_open(scenario: Scenario) -> None:
    scenario.cloud.break_("created", "a", Killed("no answer"))
    scenario.up(program())
    scenario.cloud.break_("lookup", "a", KeyError("oops"))
    run = scenario.up(program())
    assert not run.result.succeeded and "KeyError" in run.errors
    assert run.result.snapshot.pending_operations and scenario.up(program()).result.succeeded
    assert len(scenario.cloud.things) == 1
