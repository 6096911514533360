"""Configuration in the namespace `pulumi`, which is the engine's own."""

from __future__ import annotations

from tests.fakes.scenario import Scenario, Thing


def program() -> None:
    Thing("a")


def test_disabled_default_providers(scenario: Scenario) -> None:
    scenario.config = {"pulumi:disable-default-providers": '["fake"]'}
    run = scenario.up(program)
    assert not run.result.succeeded and "Default provider for 'fake' disabled" in run.errors
    scenario.config = {"pulumi:disable-default-providers": '["*"]'}
    assert not scenario.up(program).result.succeeded
    scenario.config = {"pulumi:disable-default-providers": '["other"]'}
    assert scenario.up(program).result.succeeded
