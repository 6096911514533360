"""Property values and their changes as text; the expected lines are what the official engine prints."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest

from engine.deploy.command.property_text import PropertyText, quoted

SIGNATURE = "4dabf18193072939515e22adb298388d"
ASSET = {SIGNATURE: "c44067f5952c0a294b673a41bacd8c17"}
ARCHIVE = {SIGNATURE: "0def7320c3a5731c473e5ecbe6d01bc7"}
REFERENCE = {SIGNATURE: "5cf8f73096256a8f31e491e813e4eb8e", "urn": "urn:a", "id": "i", "packageVersion": "1.0.0"}
SECRET = {SIGNATURE: "1b47061264138c4ac30d75fd1eb44270", "ciphertext": "[secret]"}
UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"


def changed(old: Any, new: Any, **how: bool) -> str:
    return "\n".join(PropertyText(**how).changed_members(old, new, 1))


def check(found: str, expected: str) -> None:
    """Both without the margin they share."""
    lines = [line.rstrip() for line in textwrap.dedent(found).split("\n")]
    assert lines == textwrap.dedent(expected).strip("\n").rstrip().split("\n")


def test_added_and_removed_values_close_without_a_mark() -> None:
    new = {"more": {"a": {"b": [1]}}, "list": [{"x": None}, [2], {}]}
    check(
        changed({"old": ["y"]}, new, sames=True),
        """
          + list: [
          +     [0]: {
                  + x: <null>
                }
          +     [1]: [
              +     [0]: 2
                ]
          +     [2]: {}
            ]
          + more: {
              + a: {
                  + b: [
                  +     [0]: 1
                    ]
                }
            }
          - old : [
          -     [0]: "y"
            ]
        """,
    )


def test_changes_inside_lists_and_maps() -> None:
    old = {"a": [[1], {"x": {"y": 1}}], "m": {"stays": 1, "empty": [], "turns": True}}
    new = {"a": [[2], {"x": {"y": 2}}], "m": {"stays": 1, "empty": [], "turns": 1}}
    check(
        changed(old, new, sames=True),
        """
          ~ a: [
              ~ [0]: [
                      ~ [0]: 1 => 2
                    ]
              ~ [1]: {
                      ~ x: {
                          ~ y: 1 => 2
                        }
                    }
            ]
          ~ m: {
                stays: 1
              ~ turns: true => 1
            }
        """,
    )


@pytest.mark.parametrize(
    ("old", "new", "line"),
    [
        ("a", "b", '~ k: "a" => "b"'),
        ("", "b", '+ k: "b"'),
        ("a", UNKNOWN, '~ k: "a" => [unknown]'),
        (SECRET, "b", '~ k: [secret] => "b"'),
        (1, 2.5, "~ k: 1 => 2.5"),
        (1e16, None, "- k: 10000000000000000"),
        ("x", [1], '- k: "x"\n  + k: [\n  +     [0]: 1\n    ]'),
        ('{"a": 1}', '{"a": 2}', "~ k: (json) {\n      ~ a: 1 => 2\n    }"),
        ("a:\n  - 1", "a:\n  - 2", "~ k: (yaml) {\n      ~ a: [\n          ~ [0]: 1 => 2\n        ]\n    }"),
        ('{"a": 1}', '{"a":1}', r'~ k: "\"{\\\"a\\\": 1}\"" => "\"{\\\"a\\\":1}\""'),
        ("a\nb\n", "a\nc\n", "~ k: \n        a\n      - b\n      + c"),
    ],
)
def test_changed_value(old: Any, new: Any, line: str) -> None:
    assert changed({"k": old}, {"k": new}) == f"  {line}"


def test_lines_far_from_a_change_are_left_out() -> None:
    old = "".join(f"{n}\n" for n in range(20))
    check(
        changed({"k": old}, {"k": old.replace("9\n1", "x\n1", 1)}),
        """
          ~ k:
                ...
                7
                8
              - 9
              + x
                10
                11
                ...
        """,
    )


def test_long_texts_are_cut_unless_whole() -> None:
    assert changed({}, {"k": "1\n2\n3\n4"}) == r'  + k: "1\n2\n3\n..."'
    assert changed({}, {"k": "x" * 151}) == f'  + k: "{"x" * 150}..."'
    assert changed({}, {"k": "x" * 151}, whole=True) == f'  + k: "{"x" * 151}"'


def test_assets_archives_and_references() -> None:
    new = {
        "file": {**ASSET, "hash": "0123456789", "path": "note.txt"},
        "made": {**ARCHIVE, "hash": "abcdefghij", "assets": {"a": {**ASSET, "hash": "1" * 9, "text": "x\ny"}}},
        "web": {**ARCHIVE, "hash": "2" * 9, "uri": "file:///x"},
        "who": REFERENCE,
    }
    check(
        changed({}, new),
        """
          + file: asset(file:0123456) { note.txt }
          + made: archive(assets:abcdefg) {
          +     "a": asset(text:1111111) {
                    x
                    y
                }
            }
          + web : archive(uri:2222222) { file:///x }
          + who : {
              + URN: "urn:a"
              + ID : "i"
              + PackageVersion: "1.0.0"
            }
        """,
    )


def test_changed_archive_names_what_changed_in_it() -> None:
    def archive(hash: str, **assets: Any) -> Any:
        return {**ARCHIVE, "hash": hash, "assets": assets}

    one, other = {**ASSET, "hash": "1" * 9, "path": "a"}, {**ASSET, "hash": "2" * 9, "path": "b"}
    check(
        changed({"k": archive("x", stays=one, turns=one)}, {"k": archive("y", stays=one, turns=other, new=one)}),
        """
          ~ k: archive(assets:x->y) {
                  + "new"  : asset(file:1111111) { a }
              ~ "turns": asset(file:1111111->2222222) { a->b }
            }
        """,
    )


def test_texts_that_would_blow_up_are_left_as_they_are() -> None:
    bomb = "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]"
    assert "(yaml)" not in changed({}, {"k": bomb}) and "(json)" not in changed({}, {"k": "[" * 100_000})
    assert changed({}, {"k": "[" * 200 + "]" * 200}).startswith('  + k: "[[[')


def test_texts_are_quoted_as_go_does() -> None:
    assert quoted('a"\\\t\x07\x00\x7f☃\u2028\U000e0001') == r'"a\"\\\t\a\x00\x7f☃\u2028\U000e0001"'
