"""Output values: what is known, secret and depended on, from one resource to the next."""

from __future__ import annotations

from typing import Any

import pulumi
from google.protobuf import struct_pb2

from engine.deploy.property import OUTPUT_SIGNATURE, SIGNATURE, UNKNOWN, Secret
from engine.deploy.wire import decode_value
from tests.fakes.scenario import Group, Scenario, Thing


def test_value_of_another_resource(scenario: Scenario) -> None:
    def program() -> None:
        a = Thing("a")
        Thing("b", {"via": a.address, "plain": 1})

    run = scenario.up(program)
    a, b = run.state("a"), run.state("b")
    assert b.inputs["via"] == a.outputs["address"]
    assert list(b.dependencies) == [a.urn]
    assert {k: list(v) for k, v in b.property_dependencies.items() if v} == {"via": [a.urn]}


def test_unknown_in_a_preview(scenario: Scenario) -> None:
    def program() -> None:
        a = Thing("a")
        Thing("b", {"via": a.address, "nested": {"list": [1, a.address]}})

    run = scenario.preview(program)
    assert run.result.succeeded, run.errors
    new = run.metadata("::b")[0]["new"]["inputs"]
    assert new["via"] == "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
    assert new["nested"]["list"] == [1, "04da6b54-80e4-46f7-96ec-b56ff0331ba9"]


def test_derived_values_keep_all_dependencies(scenario: Scenario) -> None:
    def program() -> None:
        a, b = Thing("a"), Thing("b")
        Thing("c", {"both": pulumi.Output.concat(a.address, "/", b.address)})

    run = scenario.up(program)
    urns = sorted([run.state("a").urn, run.state("b").urn])
    assert sorted(run.state("c").dependencies) == urns
    assert sorted(run.state("c").property_dependencies["both"]) == urns


def test_secret_stays_secret_through_apply(scenario: Scenario) -> None:
    def program() -> None:
        token = pulumi.Output.secret("hush")
        a = Thing("a", {"token": token})
        Thing("b", {"shout": token.apply(str.upper), "nested": {"deep": [token]}})
        pulumi.export("token", a.address.apply(lambda address: address))
        pulumi.export("shout", token.apply(str.upper))

    run = scenario.up(program)
    assert run.result.succeeded, run.errors
    assert run.state("b").inputs["shout"] == Secret("HUSH")
    assert "hush" not in str(run.events).lower().replace("hushed", "")
    assert run.result.outputs["shout"] == Secret("HUSH")
    assert scenario.cloud.made("b")[0].properties["shout"] == "HUSH"


def test_unsecret(scenario: Scenario) -> None:
    def program() -> None:
        pulumi.export("open", pulumi.Output.unsecret(pulumi.Output.secret("x")))

    assert scenario.up(program).result.outputs["open"] == "x"


def test_outputs_of_components(scenario: Scenario) -> None:
    def program() -> None:
        group = Group("g")
        a = Thing("a", {}, pulumi.ResourceOptions(parent=group))
        group.register_outputs({"address": a.address, "secret": pulumi.Output.secret("hush"), "plain": 1})

    run = scenario.up(program)
    outputs = run.state("g").outputs
    assert outputs["address"] == run.state("a").outputs["address"]
    assert outputs["secret"] == Secret("hush") and outputs["plain"] == 1


def test_stack_outputs_of_a_preview_may_be_unknown(scenario: Scenario) -> None:
    run = scenario.preview(lambda: pulumi.export("address", Thing("a").address))
    assert run.result.outputs["address"] is UNKNOWN


def test_numbers_booleans_and_none(scenario: Scenario) -> None:
    values: dict[str, Any] = {"whole": 3, "part": 1.5, "yes": True, "no": False, "nothing": None, "text": ""}

    def program() -> None:
        Thing("a", {"values": {k: v for k, v in values.items() if v is not None}})
        for key, value in values.items():
            pulumi.export(key, value)

    run = scenario.up(program)
    assert run.result.succeeded, run.errors
    assert run.state("a").inputs["values"] == {k: v for k, v in values.items() if v is not None}
    assert {k: v for k, v in run.result.outputs.items() if v is not None} == {
        k: v for k, v in values.items() if v is not None
    }
    assert scenario.up(program).entries == []


def _output(**fields: Any) -> struct_pb2.Value:
    value = struct_pb2.Value()
    value.struct_value.update({SIGNATURE: OUTPUT_SIGNATURE, **fields})
    return value


def test_wire_form() -> None:
    assert decode_value(_output(value="x", dependencies=["urn:a"])) == "x"
    assert decode_value(_output(value="x", secret=True)) == Secret("x")
    assert decode_value(_output()) is UNKNOWN
    assert decode_value(_output(secret=True)) == Secret(UNKNOWN)
