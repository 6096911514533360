"""The `import` option: taking over what exists, then making it what the program says."""

from __future__ import annotations

from typing import Any

import pulumi

from tests.fakes.provider import InMemoryProvider
from tests.fakes.scenario import Scenario, Thing


def existing(scenario: Scenario, **properties: Any) -> str:
    """A thing somebody made by hand."""
    thing = InMemoryProvider(scenario.cloud).make("by hand::x", {"name": "x", **properties})
    return thing.id


def program(id: str | None, props: dict[str, Any], **options: Any) -> Any:
    def inner() -> None:
        Thing("a", props, pulumi.ResourceOptions(import_=id, **options))

    return inner


def test_import_of_what_is_as_the_program_says(scenario: Scenario) -> None:
    id = existing(scenario, size=1)
    run = scenario.up(program(id, {"size": 1, "name": "x"}))

    assert run.result.succeeded, run.errors
    assert run.ops["a"] == ["import"] and run.result.resource_changes["import"] == 1
    state = run.state("a")
    assert (state.id, state.import_id, state.inputs) == (id, id, {"name": "x", "size": 1})
    assert state.outputs["address"] == "10.0.0.1" and state.created and state.modified
    assert "create" not in scenario.cloud.methods("a") and len(scenario.cloud.things) == 1

    again = scenario.up(program(id, {"size": 1, "name": "x"}))
    assert again.ops["a"] == ["same"] and again.entries == []


def test_import_of_what_differs_is_updated_next(scenario: Scenario) -> None:
    id = existing(scenario, size=1)
    run = scenario.up(program(id, {"size": 2, "name": "x"}))

    assert run.result.succeeded, run.errors
    assert run.ops["a"] == ["import", "update"]
    assert scenario.cloud.things[id].properties["size"] == 2
    assert run.state("a").inputs["size"] == 2 and run.state("a").id == id


def test_ignored_changes_keep_what_was_imported(scenario: Scenario) -> None:
    id = existing(scenario, size=1)
    run = scenario.up(program(id, {"size": 2, "name": "x"}, ignore_changes=["size"]))
    assert run.ops["a"] == ["import"] and run.state("a").inputs["size"] == 1


def test_import_in_place_of_a_managed_resource(scenario: Scenario) -> None:
    first = scenario.up(program(None, {"size": 1}))
    id = existing(scenario, size=1)
    run = scenario.up(program(id, {"size": 1, "name": "x"}))

    assert run.result.succeeded, run.errors
    assert run.ops["a"] == ["import-replacement", "replace", "delete-replaced"]
    assert run.state("a").id == id and list(scenario.cloud.things) == [id]
    assert first.state("a").id != id


def test_the_id_the_stack_holds_already_is_no_import(scenario: Scenario) -> None:
    id = scenario.up(program(None, {"size": 1})).state("a").id
    run = scenario.up(program(id, {"size": 1}))
    assert run.ops["a"] == ["same"] and run.state("a").import_id == id
    without = scenario.up(program(None, {"size": 1}))
    assert without.ops["a"] == ["same"] and without.state("a").import_id == ""


def test_imported_resources_are_not_replaced_while_the_program_names_their_id(scenario: Scenario) -> None:
    id = existing(scenario, kind="x")
    scenario.up(program(id, {"kind": "x", "name": "x"}))

    preview = scenario.preview(program(id, {"kind": "y", "name": "x"}))
    assert preview.result.succeeded
    run = scenario.up(program(id, {"kind": "y", "name": "x"}))

    assert not run.result.succeeded
    assert "previously-imported resources that still specify an ID may not be replaced" in run.errors
    assert "kind: x => y" in run.errors and id in scenario.cloud.things


def test_import_of_what_does_not_exist(scenario: Scenario) -> None:
    run = scenario.up(program("nope", {}))
    assert not run.result.succeeded and "resource 'nope' does not exist" in run.errors
    assert not run.has("a") and not run.result.snapshot.pending_operations


def test_preview_reads_and_writes_nothing(scenario: Scenario) -> None:
    id = existing(scenario, size=1)
    run = scenario.preview(program(id, {"size": 2, "name": "x"}))
    assert run.result.succeeded and run.ops["a"] == ["import", "update"]
    assert scenario.cloud.things[id].properties["size"] == 1


def test_taking_over_what_was_only_read(scenario: Scenario) -> None:
    id = existing(scenario, size=1)
    scenario.up(lambda: (Thing("a", {}, pulumi.ResourceOptions(id=id)), None)[1])
    run = scenario.up(program(id, {"size": 1, "name": "x"}))
    assert run.result.succeeded, run.errors
    assert run.ops["a"][0] == "import-replacement" and not run.state("a").external
    assert id in scenario.cloud.things, "the copy that was read is forgotten, not deleted"
