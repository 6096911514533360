"""Resources whose state goes stale by itself are read at the start of every update."""

from __future__ import annotations

from collections.abc import Sequence

from engine.deploy.property import PropertyMap
from engine.deploy.provider import CreateResult, Provider, ReadResult
from tests.fakes.provider import FakeProviders, InMemoryProvider
from tests.fakes.scenario import Scenario, Thing


class Stale(InMemoryProvider):
    """Says of things with a `stale` property that they want a read first."""

    async def create(
        self, urn: str, type_: str, inputs: PropertyMap, timeout_seconds: float, preview: bool
    ) -> CreateResult:
        made = await super().create(urn, type_, inputs, timeout_seconds, preview)
        return CreateResult(made.id, made.outputs, refresh_before_update="stale" in inputs)

    async def read(self, urn: str, type_: str, id: str, inputs: PropertyMap, outputs: PropertyMap) -> ReadResult:
        found = await super().read(urn, type_, id, inputs, outputs)
        return ReadResult(found.id, found.outputs, found.inputs, refresh_before_update="stale" in found.inputs)


class StaleProviders(FakeProviders):
    async def load(self, package: str, version: str) -> Provider:
        self.loaded.append(Stale(self.cloud))
        return self.loaded[-1]


def program(names: Sequence[str] = ("a", "b")) -> None:
    if "a" in names:
        Thing("a", {"stale": True})
    Thing("b")


def test_only_what_asks_for_it_is_read(scenario: Scenario) -> None:
    scenario.providers = StaleProviders(scenario.cloud)
    first = scenario.up(program)
    assert first.state("a").refresh_before_update and not first.state("b").refresh_before_update

    run = scenario.up(program)
    assert run.result.succeeded, run.errors
    assert run.ops["a"] == ["refresh", "same"] and run.ops["b"] == ["same"]
    assert scenario.cloud.methods("a").count("read") == 1 and "read" not in scenario.cloud.methods("b")


def test_what_vanished_is_made_again(scenario: Scenario) -> None:
    scenario.providers = StaleProviders(scenario.cloud)
    id = scenario.up(program).state("a").id
    del scenario.cloud.things[id]
    run = scenario.up(program)
    assert run.ops["a"] == ["refresh", "create"] and len(scenario.cloud.made("a")) == 1


def test_new_target_is_made_also_where_another_resource_wants_to_be_read(scenario: Scenario) -> None:
    scenario.providers = StaleProviders(scenario.cloud)
    scenario.up(lambda: program(["a"]))

    def grown() -> None:
        program()
        Thing("new")

    urn = "urn:pulumi:dev::lab::fake:index:Thing::"
    run = scenario.up(grown, targets=[f"{urn}new"])
    assert run.result.succeeded, run.errors
    assert run.ops["new"] == ["create"] and "refresh" not in run.ops["a"]
    unknown = scenario.up(grown, targets=[f"{urn}never"])
    assert not unknown.result.succeeded and "could not be found in the stack" in unknown.errors


def test_destroy_and_preview_read_too(scenario: Scenario) -> None:
    scenario.providers = StaleProviders(scenario.cloud)
    scenario.up(program)
    assert scenario.preview(program).ops["a"][0] == "refresh"
    run = scenario.destroy()
    assert run.ops["a"] == ["refresh", "delete"] and not scenario.cloud.things
