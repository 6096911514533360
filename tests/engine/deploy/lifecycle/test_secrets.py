"""Secrets from configuration and program to state, outputs and events."""

from __future__ import annotations

import json

import pulumi

from engine.deploy.property import Secret
from tests.fakes.scenario import Scenario, Thing

HIDDEN = {"4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270", "ciphertext": "[secret]"}


def test_secret_inputs_stay_secret(scenario: Scenario) -> None:
    def program() -> None:
        a = Thing("a", {"password": pulumi.Output.secret("hush"), "env": ["A=1", pulumi.Output.secret("B=hush")]})
        b = Thing("b", {"copy": a.password if hasattr(a, "password") else pulumi.Output.secret("hush")})
        pulumi.export("password", pulumi.Output.secret("hush"))
        pulumi.export("nested", {"plain": 1, "address": b.address})

    run = scenario.up(program)
    state = run.state("a")
    assert state.inputs["password"] == Secret("hush") and state.outputs["password"] == Secret("hush")
    assert state.outputs["env"] == Secret(["A=1", "B=hush"]), "one secret element hides its list"
    assert scenario.cloud.things[state.id].properties["password"] == "hush"
    assert run.result.outputs["password"] == Secret("hush")
    assert "hush" not in json.dumps(run.events)
    assert run.metadata("::a", "resOutputsEvent")[0]["new"]["outputs"]["password"] == HIDDEN
    assert scenario.up(program).ops["a"] == ["same"]


def test_secret_configuration_reaches_the_provider_and_no_event(scenario: Scenario) -> None:
    scenario.config = {"fake:token": "hush", "fake:region": "nyc2", "lab:size": "3"}
    scenario.secret_keys = frozenset({"fake:token"})

    def program() -> None:
        Thing("a", {"size": pulumi.Config().require_int("size")})

    run = scenario.up(program)
    provider = run.state("default_1_2_3")
    assert provider.inputs == {"__internal": {}, "region": "nyc2", "token": Secret("hush"), "version": "1.2.3"}
    assert provider.outputs == {"region": "nyc2", "token": Secret("hush"), "version": "1.2.3"}
    assert provider.parent == "" and len(provider.id) == 36
    assert scenario.cloud.configured == [{"region": "nyc2", "token": Secret("hush")}]
    config = run.events[0]["preludeEvent"]["config"]
    assert config == {"fake:region": "nyc2", "fake:token": "[secret]", "lab:size": "3"}
    assert "hush" not in json.dumps(run.events)


def test_additional_secret_outputs(scenario: Scenario) -> None:
    def program() -> None:
        a = Thing("a", {}, pulumi.ResourceOptions(additional_secret_outputs=["address"]))
        pulumi.export("address", a.address)

    run = scenario.up(program)
    assert run.state("a").outputs["address"] == Secret("10.0.0.1")
    assert list(run.state("a").additional_secret_outputs) == ["address"]
    assert run.result.outputs["address"] == Secret("10.0.0.1")
    refreshed = scenario.refresh()
    assert refreshed.state("a").outputs["address"] == Secret("10.0.0.1")
