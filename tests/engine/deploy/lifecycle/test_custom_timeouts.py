"""customTimeouts: how long a provider may take, in seconds, for each operation."""

from __future__ import annotations

from typing import Any

import pulumi
import pytest

from engine.deploy.checkpoint import CheckpointCodec
from tests.fakes.scenario import Program, Scenario, Thing


def program(size: int = 1, **timeouts: Any) -> Program:
    options = pulumi.ResourceOptions(custom_timeouts=pulumi.CustomTimeouts(**timeouts))
    return lambda: (Thing("a", {"size": size}, options), None)[1]


def test_each_operation_gets_its_own(scenario: Scenario) -> None:
    timeouts = {"create": "30s", "update": "5m", "delete": "1h30m"}
    scenario.up(program(1, **timeouts))
    scenario.up(program(2, **timeouts))
    scenario.destroy()
    assert scenario.cloud.timeouts == {("create", "a"): 30, ("update", "a"): 300, ("delete", "a"): 5400}


def test_without_the_option_the_provider_decides(scenario: Scenario) -> None:
    scenario.up(lambda: (Thing("a"), None)[1])
    assert scenario.cloud.timeouts == {("create", "a"): 0}


def test_another_timeout_is_recorded_without_an_update(scenario: Scenario) -> None:
    scenario.up(program(create="30s"))
    run = scenario.up(program(create="1m", delete="10m"))
    assert run.ops["a"] == ["same"]
    assert run.state("a").custom_timeouts == {"create": 60, "delete": 600}
    scenario.destroy()
    assert scenario.cloud.timeouts["delete", "a"] == 600, "that of the last update counts"


def test_replacement_uses_those_of_its_halves(scenario: Scenario) -> None:
    def kind(value: str) -> Program:
        options = pulumi.ResourceOptions(custom_timeouts=pulumi.CustomTimeouts(create="20s", delete="40s"))
        return lambda: (Thing("a", {"kind": value}, options), None)[1]

    scenario.up(kind("x"))
    scenario.up(kind("y"))
    assert scenario.cloud.timeouts == {("create", "a"): 20, ("delete", "a"): 40}


def test_they_survive_the_checkpoint(scenario: Scenario) -> None:
    state = scenario.up(program(create="90s", update="2m")).state("a")
    codec = CheckpointCodec(None)
    stored = codec.dump_resource(state)
    assert stored["customTimeouts"] == {"create": 90, "update": 120}
    assert codec.load_resource(stored).custom_timeouts == state.custom_timeouts


@pytest.mark.parametrize("text", ["soon", "5 parsecs"])
def test_malformed_timeout_fails_the_registration(scenario: Scenario, text: str) -> None:
    run = scenario.up(program(create=text))
    assert not run.result.succeeded and not scenario.cloud.things
    assert text in run.errors
