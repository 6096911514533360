"""Methods of resources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pulumi

from engine.deploy.property import PropertyMap, ResourceReference, Secret
from engine.deploy.provider import CallResult, CheckFailure, Provider, ProviderError
from tests.fakes.provider import FakeProviders, InMemoryProvider
from tests.fakes.scenario import Account, Scenario, Thing


class Calling(InMemoryProvider):
    """Things with a method `greet`."""

    async def configure(self, inputs: PropertyMap) -> None:
        self.inputs = inputs
        await super().configure(inputs)

    async def call(
        self, token: str, args: PropertyMap, dependencies: Mapping[str, Sequence[str]], preview: bool
    ) -> CallResult:
        receiver = args["__self__"]
        assert isinstance(receiver, ResourceReference)
        if args.get("word") == "wrong":
            return CallResult({}, [CheckFailure("word", "it is wrong")])
        if args.get("word") == "error":
            raise ProviderError("the method failed")
        name = receiver.urn.rpartition("::")[2]
        greeting = f"{args.get('word')} {name} {self.inputs.get('account', '')}".strip()
        return CallResult({"greeting": greeting, "token": Secret("t")}, dependencies={"greeting": [receiver.urn]})


class CallingProviders(FakeProviders):
    async def load(self, package: str, version: str) -> Provider:
        self.loaded.append(Calling(self.cloud))
        return self.loaded[-1]


def greet(thing: pulumi.Resource, word: str) -> pulumi.Output[Any]:
    result: pulumi.Output[Any] = pulumi.runtime.call("fake:index:Thing/greet", {"__self__": thing, "word": word}, thing)
    return result


def test_method(scenario: Scenario) -> None:
    scenario.providers = CallingProviders(scenario.cloud)

    def program() -> None:
        a = Thing("a")
        Thing("b", {"via": greet(a, "hello")["greeting"]})

    run = scenario.up(program)
    assert run.result.succeeded, run.errors
    assert run.state("b").inputs["via"] in ("hello a", Secret("hello a"))
    assert list(run.state("b").dependencies) == [run.state("a").urn]


def test_the_receivers_own_provider_answers(scenario: Scenario) -> None:
    scenario.providers = CallingProviders(scenario.cloud)

    def program() -> None:
        account = Account("acc", {"account": "mine"})
        a = Thing("a", {}, pulumi.ResourceOptions(provider=account))
        pulumi.export("greeting", pulumi.Output.unsecret(greet(a, "hello")["greeting"]))

    run = scenario.up(program)
    assert run.result.succeeded, run.errors
    assert run.result.outputs["greeting"] == "hello a mine"


def test_refused_argument(scenario: Scenario) -> None:
    scenario.providers = CallingProviders(scenario.cloud)
    run = scenario.up(lambda: (greet(Thing("a"), "wrong"), None)[1])
    assert not run.result.succeeded and "it is wrong" in run.errors


def test_failing_method(scenario: Scenario) -> None:
    scenario.providers = CallingProviders(scenario.cloud)
    run = scenario.up(lambda: (greet(Thing("a"), "error"), None)[1])
    assert not run.result.succeeded and "the method failed" in run.errors


def test_provider_without_methods(scenario: Scenario) -> None:
    run = scenario.up(lambda: (greet(Thing("a"), "hello"), None)[1])
    assert not run.result.succeeded
    assert "the provider fake here has no methods, so not fake:index:Thing/greet" in run.errors
