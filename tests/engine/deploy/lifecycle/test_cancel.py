"""Cancellation: once to finish what runs, twice to stop now."""

from __future__ import annotations

import asyncio
import threading

import pytest

from engine.deploy.update import UpdateMode
from tests.fakes.scenario import Run, Scenario, Thing, language_server


def program() -> None:
    a = Thing("a")
    Thing("b", {"peer": a.address})


def cancel_during_create(scenario: Scenario, level: int) -> Run:
    gate, arrived = asyncio.Event(), threading.Event()
    scenario.cloud.gates["create", "a"] = gate
    scenario.cloud.arrived["create", "a"] = arrived
    with language_server(program) as address:
        running = scenario.engine.start(scenario.update(UpdateMode.UP, address))
        assert arrived.wait(60)
        scenario.cancel.level = level
        if level == 1:
            scenario.engine.loop.call_soon_threadsafe(scenario.engine.loop.call_later, 0.2, gate.set)
        run: Run = running.result(60)
    scenario.cancel.level = 0
    scenario.cloud.gates.clear()
    return run


def test_first_cancel_finishes_what_runs(scenario: Scenario) -> None:
    run = cancel_during_create(scenario, 1)
    assert not run.result.succeeded and run.result.message == "update cancelled"
    assert run.has("a") and not run.has("b") and not run.result.snapshot.pending_operations
    again = scenario.up(program)
    assert again.result.succeeded and again.ops["a"] == ["same"] and len(scenario.cloud.things) == 2


def test_second_cancel_leaves_a_pending_operation(scenario: Scenario) -> None:
    run = cancel_during_create(scenario, 2)
    assert not run.result.succeeded and not run.has("a")
    assert [p.type for p in run.result.snapshot.pending_operations] == ["creating"]
    assert scenario.up(program).result.succeeded
    assert len(scenario.cloud.things) == 2 and not scenario.snapshot.pending_operations


@pytest.mark.parametrize("level", [1, 2])
def test_cancel_during_deletes(scenario: Scenario, level: int) -> None:
    scenario.up(program)
    gate, arrived = asyncio.Event(), threading.Event()
    scenario.cloud.gates["delete", "b"] = gate
    scenario.cloud.arrived["delete", "b"] = arrived
    running = scenario.engine.start(scenario.update(UpdateMode.DESTROY, None))
    assert arrived.wait(60)
    scenario.cancel.level = level
    if level == 1:
        scenario.engine.loop.call_soon_threadsafe(scenario.engine.loop.call_later, 0.2, gate.set)
    run = running.result(60)
    assert not run.result.succeeded and run.has("a") and run.has("b") == (level == 2)
    scenario.cancel.level = 0
    scenario.cloud.gates.clear()
    assert scenario.destroy().result.succeeded and not scenario.cloud.things
