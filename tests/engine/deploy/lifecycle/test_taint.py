"""Tainted resources, as `pulumi state taint` of the official CLI marks them: replaced by the next update."""

from __future__ import annotations

from dataclasses import replace

from engine.deploy.checkpoint import CheckpointCodec
from tests.fakes.scenario import Program, Scenario, Thing


def program(size: int = 1) -> Program:
    return lambda: (Thing("a", {"size": size}), Thing("b"), None)[2]


def taint(scenario: Scenario, name: str) -> None:
    resources = [s.with_(taint=True) if s.urn.endswith(f"::{name}") else s for s in scenario.snapshot.resources]
    scenario.snapshot = replace(scenario.snapshot, resources=resources)


def test_next_update_replaces_it(scenario: Scenario) -> None:
    scenario.up(program())
    taint(scenario, "a")
    run = scenario.up(program())
    assert run.result.succeeded, run.errors
    assert run.ops["a"] == ["create-replacement", "replace", "delete-replaced"] and run.ops["b"] == ["same"]
    assert not run.state("a").taint and len(scenario.cloud.made("a")) == 1
    assert scenario.up(program()).entries == []


def test_new_copy_gets_a_fresh_name(scenario: Scenario) -> None:
    before = scenario.up(program()).state("a").inputs["name"]
    taint(scenario, "a")
    assert scenario.up(program()).state("a").inputs["name"] != before


def test_what_the_targets_leave_out_stays_tainted(scenario: Scenario) -> None:
    b = scenario.up(program()).state("b").urn
    taint(scenario, "a")
    run = scenario.up(program(2), targets=(b,))
    assert run.ops["a"] == ["same"] and run.state("a").taint


def test_refresh_keeps_the_mark(scenario: Scenario) -> None:
    id = scenario.up(program()).state("a").id
    taint(scenario, "a")
    scenario.cloud.things[id].properties["size"] = 7
    assert scenario.refresh().state("a").taint
    scenario.cloud.things[id].properties["size"] = 8
    assert scenario.refresh(program()).state("a").taint


def test_destroy_does_not_mind(scenario: Scenario) -> None:
    scenario.up(program())
    taint(scenario, "a")
    run = scenario.destroy()
    assert run.result.succeeded and not scenario.cloud.things


def test_it_survives_the_checkpoint(scenario: Scenario) -> None:
    state = scenario.up(program()).state("a").with_(taint=True)
    codec = CheckpointCodec(None)
    stored = codec.dump_resource(state)
    assert stored["taint"] is True and codec.load_resource(stored).taint
