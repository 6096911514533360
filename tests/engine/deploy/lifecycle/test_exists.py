"""Whether something exists in the cloud, asked by a program without taking it into the stack."""

from __future__ import annotations

from typing import Any

import pulumi
from pulumi.runtime.resource import exists_resource

from tests.fakes.scenario import Account, Scenario, Thing

KIND = "fake:index:Thing"


def asking(id: Any, **options: Any) -> None:
    pulumi.export("exists", exists_resource(None, KIND, id, {}, pulumi.ResourceOptions(**options)))


def test_what_is_there(scenario: Scenario) -> None:
    id = scenario.up(lambda: (Thing("a"), None)[1]).state("a").id
    for wanted, answer in ((id, True), ("id-99", False)):
        run = scenario.up(lambda id=wanted: (Thing("a"), asking(id), None)[2])
        assert run.result.succeeded, run.errors
        assert run.result.outputs["exists"] is answer
        assert [s.type for s in run.result.snapshot.resources].count(KIND) == 1


def test_previews_ask_as_well(scenario: Scenario) -> None:
    run = scenario.preview(lambda: asking("id-1"))
    assert run.result.succeeded, run.errors
    assert run.result.outputs["exists"] is False


def test_explicit_provider_is_asked(scenario: Scenario) -> None:
    run = scenario.up(lambda: asking("id-1", provider=Account("acc", {"token": "t"})))
    assert run.result.succeeded, run.errors
    assert scenario.cloud.configured == [{"token": "t"}]


def test_failing_provider_fails_the_program(scenario: Scenario) -> None:
    scenario.cloud.fail("read", "id-1", "503")
    run = scenario.up(lambda: asking("id-1"))
    assert not run.result.succeeded and "503" in run.errors


def test_unknown_type_is_refused_by_name(scenario: Scenario) -> None:
    def program() -> None:
        pulumi.export("x", exists_resource(None, "other:index:T", "id", {}, pulumi.ResourceOptions()))

    run = scenario.up(program)
    assert not run.result.succeeded and "no provider here knows the resource type other:index:T" in run.errors
