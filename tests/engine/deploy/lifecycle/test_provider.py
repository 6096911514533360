"""Default and explicit providers."""

from __future__ import annotations

from typing import Any

import pulumi

from engine.deploy.property import Secret
from engine.deploy.provider import ProviderError
from tests.fakes.provider import FakeProviders
from tests.fakes.scenario import Account, Group, Scenario, Thing


def explicit(**props: Any) -> Any:
    def program() -> None:
        token = {"token": pulumi.Output.secret(props["secret"])} if "secret" in props else {}
        plain = {k: v for k, v in props.items() if k != "secret"}
        account = Account("acc", {**plain, **token}, pulumi.ResourceOptions(additional_secret_outputs=["token"]))
        group = Group("g", pulumi.ResourceOptions(providers=[account]))
        Thing("a", {}, pulumi.ResourceOptions(provider=account))
        Thing("b", {}, pulumi.ResourceOptions(parent=group))

    return program


def test_explicit_provider(scenario: Scenario) -> None:
    run = scenario.up(explicit(secret="t", retries="0"))

    assert run.result.succeeded, run.errors
    account = run.state("acc")
    assert account.inputs == {"__internal": {}, "token": Secret("t"), "retries": "0", "version": "1.2.3"}
    assert account.outputs == {"token": Secret("t"), "retries": "0", "version": "1.2.3"}
    assert list(account.additional_secret_outputs) == ["token"]
    assert account.parent.endswith("::lab-dev")
    assert run.state("a").provider == f"{account.urn}::{account.id}" == run.state("b").provider
    assert not run.has("default_1_2_3")
    assert run.result.resource_changes == {"create": 5}
    assert scenario.up(explicit(secret="t", retries="0")).entries == []


def test_changed_configuration_updates_the_provider_only(scenario: Scenario) -> None:
    scenario.up(explicit(retries="0"))
    run = scenario.up(explicit(retries="1"))
    assert run.ops["acc"] == ["update"] and run.ops["a"] == ["same"]
    assert scenario.cloud.configured[-1] == {"retries": "1"}


def test_another_account_replaces_everything_in_it(scenario: Scenario) -> None:
    scenario.up(explicit(account="1"))
    run = scenario.up(explicit(account="2"))
    assert run.result.succeeded, run.errors
    assert run.ops["acc"] == ["create-replacement", "replace", "delete-replaced"]
    assert run.ops["a"] == ["create-replacement", "replace", "delete-replaced"]
    assert run.metadata("::a")[0]["keys"] == ["provider"]
    old_account = {"account": "1"}
    assert old_account in scenario.cloud.configured, "the old things are deleted with the old configuration"
    assert len(scenario.cloud.things) == 2


def test_check_failure_of_a_provider(scenario: Scenario) -> None:
    run = scenario.up(explicit(bad="x"))
    assert not run.result.succeeded
    assert (
        "pulumi:providers:fake resource 'acc': property bad value {x} has a problem: it must not be there" in run.errors
    )
    assert not scenario.cloud.things


def test_unknown_package_is_refused_by_name(scenario: Scenario) -> None:
    class Bucket(pulumi.CustomResource):
        def __init__(self) -> None:
            super().__init__("aws:s3/bucket:Bucket", "b", {}, None)

    run = scenario.up(lambda: (Bucket(), None)[1])
    assert not run.result.succeeded
    assert "no provider here knows the resource type aws:s3/bucket:Bucket: set STACKYARD_PULUMI=cli" in run.errors


def test_provider_that_cannot_be_configured(scenario: Scenario) -> None:
    class Broken:
        cloud = scenario.cloud

        def provides(self, package: str, type_: str) -> bool:
            return True

        async def load(self, package: str, version: str) -> Any:
            raise ProviderError(f"{package} {version} is broken")

    scenario.providers = Broken()
    run = scenario.up(lambda: (Thing("a"), None)[1])
    assert not run.result.succeeded and "fake 1.2.3 is broken" in run.errors


def test_providers_are_closed(scenario: Scenario) -> None:
    scenario.providers = FakeProviders(scenario.cloud)
    scenario.up(explicit())
    assert scenario.providers.loaded and all(p.closed for p in scenario.providers.loaded)
