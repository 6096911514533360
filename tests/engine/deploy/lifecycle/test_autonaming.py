"""`pulumi:autonaming`: names as the stack's configuration wants them, made by whichever provider."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pulumi
import pytest

from engine.deploy.autonaming import AutonamingError, generate_name, read_autonamer
from engine.deploy.provider import Autonaming, AutonamingMode
from engine.deploy.providers.bridge.schema import Kind, Property, Schema, check
from engine.deploy.update_target import UpdateTarget
from tests.fakes.folder import Folder
from tests.fakes.scenario import Account, Scenario, Thing

URN = "urn:pulumi:dev::lab::fake:index:Thing::a"
SEED = b"seed-seed-seed-seed-seed-seed-32"
KIND = "fake:index:Thing"


def naming(config: Any, **more: str) -> dict[str, str]:
    return {"pulumi:autonaming": json.dumps(config), **more}


def autonamer(config: Any, **more: str) -> Any:
    return read_autonamer(UpdateTarget("lab", "dev", naming(config, **more)))


@pytest.mark.parametrize(
    ("pattern", "name"),
    [
        # The names the official engine makes of this seed (pulumi 3.260, autonaming/strategy.go).
        ("${name}-${hex(7)}", "a-262288a"),
        ("x${alphanum(5)}y${string(6)}-${num(3)}", "x0p272yxqufyx-733"),
        ("${uuid}", "262288a0-1313-73fc-5ba0-74dea8e7f28a"),
        ("plain-${name}", "plain-a"),
    ],
)
def test_names_are_the_official_engines(pattern: str, name: str) -> None:
    assert generate_name(pattern, URN, SEED) == (name, name != "plain-a")


def test_long_names_are_the_official_engines() -> None:
    """Past the place where the generator makes itself a new seed."""
    name, _ = generate_name("${num(400)}${hex(9)}${uuid}", URN, SEED)
    assert name.startswith("30963421237331219610761981583020")
    assert name.endswith("6262288a011373fc9f-5b81-0a8c-eb36-51afc71824e1")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, None),
        ({"mode": "default"}, None),
        ({"mode": "verbatim"}, Autonaming("a", AutonamingMode.ENFORCE)),
        ({"mode": "disabled"}, Autonaming("", AutonamingMode.DISABLE)),
        ({"pattern": "p-${name}"}, Autonaming("p-a", AutonamingMode.PROPOSE)),
        ({"pattern": "p-${name}", "enforce": True}, Autonaming("p-a", AutonamingMode.ENFORCE, warn=True)),
        (
            {"mode": "verbatim", "providers": {"fake": {"pattern": "f-${name}"}}},
            Autonaming("f-a", AutonamingMode.PROPOSE, warn=True),
        ),
        (
            {"providers": {"fake": {"mode": "disabled", "resources": {KIND: {"mode": "verbatim"}}}}},
            Autonaming("a", AutonamingMode.ENFORCE, warn=True),
        ),
        ({"providers": {"fake": {"mode": "disabled", "resources": {KIND: {"mode": "default"}}}}}, None),
        ({"providers": {"other": {"mode": "disabled"}}}, None),
        (
            {"mode": "verbatim", "providers": {"fake": {"resources": {"fake:index:Other": {"mode": "disabled"}}}}},
            Autonaming("a", AutonamingMode.ENFORCE, warn=True),
        ),
    ],
)
def test_most_specific_section_counts(config: Any, expected: Autonaming | None) -> None:
    assert autonamer(config).autonaming(URN, SEED) == expected


def test_stack_expressions() -> None:
    pattern = "${organization}-${project}-${stack}-${config.team}-${config.deep.er[1]}-${name}"
    more = {"lab:team": "red", "lab:deep": json.dumps({"er": ["x", "y"]})}
    found = autonamer({"pattern": pattern}, **more).autonaming(URN, SEED)
    assert found.proposed_name == "organization-lab-dev-red-y-a"


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("text", "must be an object"),
        ([], "must be an object"),
        ({"modus": "x"}, "unknown field 'modus'"),
        ({"mode": 1}, "mode must be a str"),
        ({"mode": "other"}, "invalid naming mode: other"),
        ({"mode": "verbatim", "pattern": "x"}, "cannot specify both mode and pattern/enforce"),
        ({"mode": "verbatim", "enforce": False}, "cannot specify both mode and pattern/enforce"),
        ({"enforce": True}, "pattern must be specified when enforce is true"),
        ({"pattern": "${config.nothing}"}, "no value found for key 'nothing'"),
        ({"providers": {"fake": {"mode": "bad"}}}, "naming config for provider 'fake': invalid naming mode"),
        (
            {"providers": {"fake": {"resources": {KIND: {}}}}},
            f"mode or pattern must be specified for resource '{KIND}'",
        ),
        ({"providers": []}, "must be an object"),
    ],
)
def test_wrong_configuration(config: Any, message: str) -> None:
    with pytest.raises(AutonamingError, match=message):
        autonamer(config)


def test_wrong_configuration_does_nothing(scenario: Scenario) -> None:
    scenario.config = naming({"mode": "other"})
    run = scenario.up(lambda: (Thing("a"), None)[1])
    assert not run.result.succeeded
    assert "getting autonaming config: failed to resolve root naming config: invalid naming mode: other" in run.errors
    assert not scenario.cloud.calls


@pytest.mark.parametrize(
    ("config", "name"),
    [({"mode": "verbatim"}, "a"), ({"pattern": "${stack}-${name}"}, "dev-a")],
)
def test_provider_names_as_told(scenario: Scenario, config: Any, name: str) -> None:
    scenario.config = naming(config)
    run = scenario.up(lambda: (Thing("a"), Thing("b", {"name": "mine"}), None)[2])
    assert run.result.succeeded, run.errors
    assert run.state("a").inputs["name"] == name
    assert run.state("b").inputs["name"] == "mine"


def test_name_stays_when_the_configuration_changes(scenario: Scenario) -> None:
    scenario.config = naming({"pattern": "${name}-${hex(6)}"})
    first = scenario.up(lambda: (Thing("a"), None)[1]).state("a").inputs["name"]
    scenario.config = naming({"mode": "verbatim"})
    run = scenario.up(lambda: (Thing("a"), None)[1])
    assert run.ops["a"] == ["same"]
    assert run.state("a").inputs["name"] == first


def test_disabled_wants_explicit_names(scenario: Scenario) -> None:
    scenario.config = naming({"mode": "disabled"})
    run = scenario.up(lambda: (Thing("a"), None)[1])
    assert "it has no name" in run.errors
    assert not scenario.cloud.things


def test_name_that_is_always_the_same_replaces_delete_first(scenario: Scenario) -> None:
    scenario.config = naming({"pattern": "${project}-${name}"})
    scenario.up(lambda: (Thing("a", {"kind": "x"}), None)[1])
    run = scenario.up(lambda: (Thing("a", {"kind": "y"}), None)[1])
    assert run.ops["a"] == ["delete-replaced", "replace", "create-replacement"]


def test_random_name_replaces_create_first(scenario: Scenario) -> None:
    scenario.config = naming({"pattern": "${name}-${num(4)}"})
    scenario.up(lambda: (Thing("a", {"kind": "x"}), None)[1])
    run = scenario.up(lambda: (Thing("a", {"kind": "y"}), None)[1])
    assert run.ops["a"] == ["create-replacement", "replace", "delete-replaced"]


@pytest.mark.parametrize(("config", "warned"), [({"pattern": "x", "enforce": True}, True), ({"pattern": "x"}, False)])
def test_provider_that_cannot_follow(scenario: Scenario, config: Any, warned: bool) -> None:
    scenario.config = naming(config)
    scenario.cloud.follows_autonaming = False
    run = scenario.up(lambda: (Thing("a"), None)[1])
    warnings = [e["diagnosticEvent"]["message"] for e in run.events if "diagnosticEvent" in e]
    assert any("the provider does not support autonaming configuration" in w for w in warnings) is warned
    assert run.result.succeeded


def test_explicit_providers_are_not_named(scenario: Scenario) -> None:
    scenario.config = naming({"mode": "disabled"})

    def program() -> None:
        account = Account("account", {"account": "x"})
        Thing("a", {"name": "n"}, pulumi.ResourceOptions(provider=account))

    run = scenario.up(program)
    assert run.result.succeeded, run.errors


def test_plan_keeps_the_name_of_its_seed(scenario: Scenario) -> None:
    scenario.config = naming({"pattern": "${name}-${uuid}"})
    plan = scenario.preview(lambda: (Thing("a"), None)[1], generate_plan=True).result.plan
    run = scenario.up(lambda: (Thing("a"), None)[1], plan=plan)
    assert run.result.succeeded, run.errors


@pytest.mark.parametrize(
    ("told", "olds", "name"),
    [
        (Autonaming("given", AutonamingMode.PROPOSE), {}, "given"),
        (Autonaming("given", AutonamingMode.ENFORCE), {}, "given"),
        (Autonaming("given", AutonamingMode.ENFORCE), {"name": "old", "__defaults": ["name"]}, "old"),
        (Autonaming("", AutonamingMode.DISABLE), {"name": "old", "__defaults": ["name"]}, "old"),
        (Autonaming("", AutonamingMode.DISABLE), {}, None),
    ],
)
def test_built_in_provider_follows(told: Autonaming, olds: dict[str, Any], name: str | None) -> None:
    prop = Property(Kind.STRING, automatic_name=True, required=True)
    result = check(Schema({"name": prop}), URN, olds, {}, SEED, told)
    if name is None:
        assert [f.reason for f in result.failures] == ["automatic naming is disabled but no explicit name was provided"]
    else:
        assert result.inputs["name"] == name and not result.failures


def test_command_line(started: Callable[..., Folder]) -> None:
    folder = started("from thing import Thing\nThing('a')\n")
    folder.run("config", "set", "--path", "pulumi:autonaming.pattern", "${stack}-${name}", "--stack", "dev")
    folder.up()
    assert folder.cloud.made("a")[0].properties["name"] == "dev-a"
