"""Another version of a provider: its resources move over, nothing is replaced, the old provider goes."""

from __future__ import annotations

from typing import Any

import pulumi

from tests.fakes.provider import FakeProviders
from tests.fakes.scenario import Account, Scenario, Thing


def default(version: str, size: int = 1) -> Any:
    def inner() -> None:
        Thing("a", {"size": size}, pulumi.ResourceOptions(version=version))

    return inner


def test_default_provider(scenario: Scenario) -> None:
    scenario.up(default("1.2.3"))
    run = scenario.up(default("2.0.0"))
    assert run.result.succeeded, run.errors
    assert run.ops["a"] == ["same"] and len(scenario.cloud.things) == 1
    assert run.ops["default_2_0_0"] == ["create"] and run.ops["default_1_2_3"] == ["delete"]
    assert run.state("a").provider.startswith(run.state("default_2_0_0").urn)
    assert not run.has("default_1_2_3")
    assert scenario.up(default("2.0.0")).entries == []


def test_with_a_change_at_the_same_time(scenario: Scenario) -> None:
    scenario.up(default("1.2.3"))
    run = scenario.up(default("2.0.0", size=2))
    assert run.result.succeeded, run.errors
    assert run.ops["a"] == ["update"] and run.state("a").inputs["size"] == 2


def test_failed_update_keeps_both(scenario: Scenario) -> None:
    scenario.up(default("1.2.3"))
    scenario.cloud.fail("update", "a")
    run = scenario.up(default("2.0.0", size=2))
    assert not run.result.succeeded
    assert run.has("default_1_2_3") and run.has("default_2_0_0")
    assert run.state("a").provider.startswith(run.state("default_1_2_3").urn)
    assert scenario.up(default("2.0.0", size=2)).result.succeeded


def test_explicit_provider_is_updated(scenario: Scenario) -> None:
    def explicit(version: str) -> Any:
        def inner() -> None:
            account = Account("acc", {}, pulumi.ResourceOptions(version=version))
            Thing("a", {}, pulumi.ResourceOptions(provider=account))

        return inner

    scenario.providers = FakeProviders(scenario.cloud)
    scenario.up(explicit("2.0.0"))
    run = scenario.up(explicit("2.1.0"))
    assert run.result.succeeded, run.errors
    assert run.ops["acc"] in (["update"], ["same"]) and run.ops["a"] == ["same"]
