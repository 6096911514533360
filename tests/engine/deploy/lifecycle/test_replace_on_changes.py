"""replaceOnChanges: a change of these properties replaces what the provider would have updated."""

from __future__ import annotations

from typing import Any

import pulumi
import pytest

from engine.deploy.diff import apply_replace_on_changes
from engine.deploy.provider import DiffKind, DiffResult, PropertyDiff
from tests.fakes.scenario import Program, Scenario, Thing


def program(paths: list[str], **properties: Any) -> Program:
    options = pulumi.ResourceOptions(replace_on_changes=paths)
    return lambda: (Thing("a", properties, options), None)[1]


REPLACED = ["create-replacement", "replace", "delete-replaced"]


@pytest.mark.parametrize(
    ("paths", "ops"),
    [
        (["size"], REPLACED),
        (["*"], REPLACED),
        (["other"], ["update"]),
        ([], ["update"]),
    ],
)
def test_top_level_property(scenario: Scenario, paths: list[str], ops: list[str]) -> None:
    scenario.up(program(paths, size=1))
    assert scenario.up(program(paths, size=2)).ops["a"] == ops


@pytest.mark.parametrize(
    ("path", "replaced"),
    [
        ("tags", True),
        ("tags.team", True),
        ("tags.*", True),
        ("tags.other", False),
        ('tags["team"]', True),
        ("list", False),
    ],
)
def test_nested_property(scenario: Scenario, path: str, replaced: bool) -> None:
    scenario.up(program([path], tags={"team": "red", "other": 1}, list=[1, 2]))
    run = scenario.up(program([path], tags={"team": "blue", "other": 1}, list=[1, 2]))
    assert run.ops["a"] == (REPLACED if replaced else ["update"])


@pytest.mark.parametrize(("path", "replaced"), [("list[1]", True), ("list[0]", False), ("list[*]", True)])
def test_elements_of_a_list(scenario: Scenario, path: str, replaced: bool) -> None:
    scenario.up(program([path], list=[1, 2]))
    assert scenario.up(program([path], list=[1, 3])).ops["a"] == (REPLACED if replaced else ["update"])


def test_added_and_removed_properties_count(scenario: Scenario) -> None:
    scenario.up(program(["size"]))
    assert scenario.up(program(["size"], size=1)).ops["a"] == REPLACED
    assert scenario.up(program(["size"])).ops["a"] == REPLACED


def test_nothing_changed(scenario: Scenario) -> None:
    scenario.up(program(["*"], size=1))
    assert scenario.up(program(["*"], size=1)).ops["a"] == ["same"]


def test_keys_are_shown(scenario: Scenario) -> None:
    scenario.up(program(["size"], size=1, other=1))
    run = scenario.up(program(["size"], size=2, other=2))
    assert run.metadata("::a")[0]["keys"] == ["size"]


def test_with_delete_before_replace(scenario: Scenario) -> None:
    def inner(size: int) -> Program:
        options = pulumi.ResourceOptions(replace_on_changes=["size"], delete_before_replace=True)
        return lambda: (Thing("a", {"size": size}, options), None)[1]

    scenario.up(inner(1))
    assert scenario.up(inner(2)).ops["a"] == ["delete-replaced", "replace", "create-replacement"]


def test_ignored_changes_are_none(scenario: Scenario) -> None:
    def inner(size: int) -> Program:
        options = pulumi.ResourceOptions(replace_on_changes=["size"], ignore_changes=["size"])
        return lambda: (Thing("a", {"size": size}, options), None)[1]

    scenario.up(inner(1))
    assert scenario.up(inner(2)).ops["a"] == ["same"]


def test_what_never_became_usable_is_replaced(scenario: Scenario) -> None:
    assert not scenario.up(program(["#initerror"], broken=True)).result.succeeded
    run = scenario.up(program(["#initerror"]))
    assert run.result.succeeded, run.errors
    assert run.ops["a"] == REPLACED


def test_protected_resource_stays(scenario: Scenario) -> None:
    def inner(size: int) -> Program:
        options = pulumi.ResourceOptions(replace_on_changes=["size"], protect=True)
        return lambda: (Thing("a", {"size": size}, options), None)[1]

    scenario.up(inner(1))
    run = scenario.up(inner(2))
    assert not run.result.succeeded and "unable to replace resource" in run.errors
    assert scenario.cloud.made("a")[0].properties["size"] == 1


def test_detailed_diff_says_replace() -> None:
    diff = DiffResult(True, changed_keys=["a"], detailed_diff={"a.b": PropertyDiff(DiffKind.UPDATE)})
    changed = apply_replace_on_changes(diff, ["a"], has_init_errors=False)
    assert changed.detailed_diff["a.b"].kind is DiffKind.UPDATE_REPLACE and list(changed.replace_keys) == ["a"]
