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


def test_autonaming_is_refused_by_name(scenario: Scenario) -> None:
    scenario.config = {"pulumi:autonaming": '{"mode": "verbatim"}'}
    run = scenario.up(program)
    assert not run.result.succeeded and not scenario.cloud.things
    assert "autonaming (`pulumi:autonaming`): not supported by the embedded engine" in run.errors


def test_plans_are_refused_by_name(scenario: Scenario) -> None:
    run = scenario.up(program, plan={})
    assert not run.result.succeeded and not scenario.cloud.things
    assert "--plan: not supported by the embedded engine; set STACKYARD_PULUMI=cli" in run.errors
