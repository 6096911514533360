"""Property paths, ignoreChanges, replaceOnChanges and plain comparison."""

from __future__ import annotations

from typing import Any

import pytest

from engine.deploy.diff import (
    apply_ignore_changes,
    apply_replace_on_changes,
    diff_inputs,
    invert,
    is_same_record,
    parse_path,
)
from engine.deploy.property import Secret
from engine.deploy.provider import DiffKind, DiffResult, PropertyDiff
from engine.deploy.resource import ResourceState


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("tags", ["tags"]),
        ("tags[1]", ["tags", 1]),
        ("labels[0].value", ["labels", 0, "value"]),
        ('a["b.c"].d', ["a", "b.c", "d"]),
        ("rules[*].port", ["rules", "*", "port"]),
        ("*", ["*"]),
        ("#initerror", ["#initerror"]),
    ],
)
def test_parse_path(path: str, parts: list[Any]) -> None:
    assert parse_path(path) == parts


def test_malformed_path() -> None:
    with pytest.raises(ValueError, match="malformed property path 'a\\[x'"):
        parse_path("a[x")


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["a"], {"a": 1, "b": {"c": 20, "d": 30}, "l": [{"x": 9}, {"x": 8}]}),
        (["b.c"], {"a": 10, "b": {"c": 2, "d": 30}, "l": [{"x": 9}, {"x": 8}]}),
        (["b"], {"a": 10, "b": {"c": 2}, "l": [{"x": 9}, {"x": 8}]}),
        (["b.d"], {"a": 10, "b": {"c": 20}, "l": [{"x": 9}, {"x": 8}]}),
        (["l[0].x"], {"a": 10, "b": {"c": 20, "d": 30}, "l": [{"x": 1}, {"x": 8}]}),
        (["l[*].x"], {"a": 10, "b": {"c": 20, "d": 30}, "l": [{"x": 1}, {"x": 8}]}),
        (["gone"], {"a": 10, "b": {"c": 20, "d": 30}, "l": [{"x": 9}, {"x": 8}], "gone": 5}),
        (["*"], {"a": 1, "b": {"c": 2}, "l": [{"x": 1}], "gone": 5}),
    ],
)
def test_ignore_changes(paths: list[str], expected: Any) -> None:
    old = {"a": 1, "b": {"c": 2}, "l": [{"x": 1}], "gone": 5}
    new = {"a": 10, "b": {"c": 20, "d": 30}, "l": [{"x": 9}, {"x": 8}]}
    assert apply_ignore_changes(old, new, paths) == expected


def test_ignore_changes_inside_secrets() -> None:
    old, new = {"s": Secret({"a": 1, "b": 1})}, {"s": Secret({"a": 2, "b": 2})}
    assert apply_ignore_changes(old, new, ["s.a"]) == {"s": Secret({"a": 1, "b": 2})}


def test_diff_inputs_names_elements_and_top_properties() -> None:
    diff = diff_inputs({"t": ["a"], "x": 1, "m": {"k.l": 1}}, {"t": ["a", "b"], "y": 2, "m": {"k.l": 2}})
    assert diff.changes and sorted(diff.changed_keys) == ["m", "t", "x", "y"]
    assert {p: d.kind for p, d in diff.detailed_diff.items()} == {
        "t[1]": DiffKind.ADD,
        "y": DiffKind.ADD,
        "x": DiffKind.DELETE,
        'm["k.l"]': DiffKind.UPDATE,
    }
    assert diff_inputs({"a": 1}, {"a": 1.0}).changes is False
    assert {d.kind for d in invert(diff).detailed_diff.values()} == {DiffKind.DELETE, DiffKind.ADD, DiffKind.UPDATE}


def test_replace_on_changes() -> None:
    diff = DiffResult(True, changed_keys=["tags"], detailed_diff={"tags[0]": PropertyDiff(DiffKind.UPDATE)})
    forced = apply_replace_on_changes(diff, ["tags"], False)
    assert list(forced.replace_keys) == ["tags"]
    assert forced.detailed_diff["tags[0]"].kind is DiffKind.UPDATE_REPLACE
    assert apply_replace_on_changes(diff, ["size"], False).replace_keys == []
    assert list(apply_replace_on_changes(DiffResult(False), ["#initerror"], True).replace_keys) == ["#initerror"]
    assert apply_replace_on_changes(DiffResult(False), ["*"], False).changes is False


def test_same_record_ignores_the_order_of_sets() -> None:
    one = ResourceState("urn:pulumi:a::b::c::d", "c", True, dependencies=("x", "y"), property_dependencies={"k": ()})
    assert is_same_record(one, one.with_(dependencies=["y", "x"], property_dependencies={}))
    assert not is_same_record(one, one.with_(protect=True))
