"""Property values, and what changed in them, as displays print them: indented, aligned, marked.

Reads the JSON form events carry (secrets already hidden) and chooses nothing. Source: pulumi
`pkg/backend/display/object_diff.go`.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from engine.deploy.property import (
    ARCHIVE_SIGNATURE,
    ASSET_SIGNATURE,
    RESOURCE_SIGNATURE,
    SECRET_SIGNATURE,
    SIGNATURE,
    UNKNOWN_VALUE,
)

ABSENT = object()
_SHORT_HASH = 7
_CONTEXT_LINES = 2
_MOST_LINES = 3
_LONGEST_LINE = 150
_DEEPEST = 100  # as deep as messages between engine and SDK can be
_ESCAPES = {'"': '\\"', "\\": "\\\\"} | {chr(c): f"\\{e}" for c, e in zip(range(7, 14), "abtnvfr", strict=True)}


def lead(depth: int, mark: str = " ") -> str:
    """The start of a line: its text begins at column 4 × depth, its mark stands before that."""
    return "    " * (depth - 1) + f"  {mark} "


@dataclass(frozen=True)
class PropertyText:
    """How to print property values.

    Attributes:
        sames: also what is inside something that changed and did not change itself.
        whole: long texts to their end.
    """

    sames: bool = False
    whole: bool = False

    def member_lines(self, members: Mapping[str, Any], depth: int, mark: str) -> Iterator[str]:
        """All members of a map, each line with the same mark."""
        keys = [key for key in sorted(members) if not key.startswith("__")]
        width = max((len(key) for key in keys), default=0)
        for key in keys:
            yield from self.plain_lines(f"{key:<{width}}: ", members[key], depth, mark)

    def plain_lines(self, label: str, value: Any, depth: int, mark: str, *, inside: int = 0) -> Iterator[str]:
        """One member or element with all that is in it.

        Args:
            inside: how much deeper its own members are than those of a map's member: 1 for elements of a changed list.
        """
        first, *more = self._value_lines(value, depth + inside, mark)
        yield f"{lead(depth, mark)}{label}{first}"
        yield from more

    def changed_lines(self, label: str, old: Any, new: Any, depth: int, *, inside: int = 0) -> Iterator[str]:
        """One member or element and what changed in it; `ABSENT` where there was or is none."""
        if old is ABSENT or new is ABSENT:
            value, mark = (new, "+") if old is ABSENT else (old, "-")
            yield from self.plain_lines(label, value, depth, mark, inside=inside)
        elif isinstance(old, list) and isinstance(new, list) and (old or new):
            yield f"{lead(depth, '~')}{label}["
            yield from self._changed_elements(old, new, depth + inside)
            yield f"{lead(depth + inside)}]"
        elif is_map(old) and is_map(new) and (old or new):
            yield f"{lead(depth, '~')}{label}{{"
            yield from self.changed_members(old, new, depth + inside + 1)
            yield f"{lead(depth + inside)}}}"
        elif _is_shown(old) and _is_shown(new) and is_same_kind(old, new, ARCHIVE_SIGNATURE):
            yield from self._changed_archive(label, old, new, depth)
        elif _is_shown(old) and _is_shown(new) and _is_primitive(old) and _is_primitive(new):
            first, *more = self._changed_primitive(old, new, depth + inside)
            yield f"{lead(depth, '~')}{label}{first}"
            yield from more
        else:
            if _is_shown(old):
                yield from self.plain_lines(label, old, depth, "-", inside=inside)
            if _is_shown(new):
                yield from self.plain_lines(label, new, depth, "+", inside=inside)

    def changed_members(
        self, old: Mapping[str, Any], new: Mapping[str, Any], depth: int, hidden: Collection[str] = ()
    ) -> Iterator[str]:
        """The members of two maps that differ; with `sames` also the others that are not empty.

        Args:
            hidden: members that are not printed, though space is left for their names.
        """
        keys = sorted(key for key in {*old, *new} if not key.startswith("__"))
        differing = {key for key in keys if not is_same(old.get(key, ABSENT), new.get(key, ABSENT))}
        width = max((len(key) for key in (keys if self.sames else differing)), default=0)
        for key in (k for k in keys if k not in hidden):
            label, was, is_ = f"{key:<{width}}: ", old.get(key, ABSENT), new.get(key, ABSENT)
            if key in differing:
                yield from self.changed_lines(label, was, is_, depth)
            elif self.sames and _is_shown(is_):
                yield from self.plain_lines(label, is_, depth, " ")

    def _changed_elements(self, old: Sequence[Any], new: Sequence[Any], depth: int) -> Iterator[str]:
        for index in range(max(len(old), len(new))):
            was = old[index] if index < len(old) else ABSENT
            is_ = new[index] if index < len(new) else ABSENT
            label = f"[{index}]: "
            if not is_same(was, is_):
                yield from self.changed_lines(label, was, is_, depth + 1, inside=1)
            elif self.sames:
                yield from self.plain_lines(label, is_, depth + 1, " ", inside=1)

    def _value_lines(self, value: Any, depth: int, mark: str) -> list[str]:
        """The lines of a value; the first stands behind its label."""
        if isinstance(value, list) and value:
            lines = ["["]
            for index, item in enumerate(value):  # the mark stands where the list's own stands
                first, *more = self._value_lines(item, depth + 1, mark)
                lines += [f"{lead(depth, mark)}    [{index}]: {first}", *more]
            return [*lines, f"{lead(depth)}]"]
        if is_map(value) and value:
            return ["{", *self.member_lines(value, depth + 1, mark), f"{lead(depth)}}}"]
        if isinstance(value, Mapping) and (lines := self._marked_lines(value, depth, mark)):
            return lines
        if isinstance(value, str) and (decoded := _decoded(value)):
            first, *more = self._value_lines(decoded[1], depth, mark)
            return [f"({decoded[0]}) {first}", *more, ""]
        return [self._scalar(value)]

    def _marked_lines(self, value: Mapping[str, Any], depth: int, mark: str) -> list[str]:
        signature = value.get(SIGNATURE)
        if signature == RESOURCE_SIGNATURE:
            facts = {"URN": value.get("urn"), "ID ": value.get("id"), "PackageVersion": value.get("packageVersion", "")}
            return [
                "{",
                *(f"{lead(depth + 1, mark)}{k}: {self._scalar(v)}" for k, v in facts.items()),
                f"{lead(depth)}}}",
            ]
        if signature not in (ASSET_SIGNATURE, ARCHIVE_SIGNATURE):
            return []
        what, hash = ("asset" if signature == ASSET_SIGNATURE else "archive"), _short(value)
        if what == "asset" and "text" in value:
            texts = (f"{lead(depth)}    {line}" for line in str(value["text"]).split("\n"))
            return [f"asset(text:{hash}) {{", *texts, f"{lead(depth)}}}"]
        if what == "archive" and isinstance(members := value.get("assets"), Mapping):
            lines = [f"archive(assets:{hash}) {{"]
            for name in sorted(members):
                first, *more = self._value_lines(members[name], depth + 1, mark)
                lines += [f'{lead(depth, mark)}    "{name}": {first}', *more]
            return [*lines, f"{lead(depth)}}}"]
        if path := value.get("path"):
            return [f"{what}(file:{hash}) {{ {path} }}"]
        return [f"{what}(uri:{hash}) {{ {value.get('uri', '')} }}"]

    def _changed_archive(self, label: str, old: Mapping[str, Any], new: Mapping[str, Any], depth: int) -> Iterator[str]:
        hash = _turned(_short(old), _short(new))
        for kind, key in (("file", "path"), ("uri", "uri")):
            if old.get(key) and new.get(key):
                yield f"{lead(depth, '~')}{label}archive({kind}:{hash}) {{ {_turned(str(old[key]), str(new[key]))} }}"
                return
        if "assets" in old and "assets" in new:
            yield f"{lead(depth, '~')}{label}archive(assets:{hash}) {{"
            yield from self._changed_assets(old["assets"], new["assets"], depth + 1)
            yield f"{lead(depth)}}}"
            return
        yield from self.plain_lines(label, old, depth, "-")
        yield from self.plain_lines(label, new, depth, "+")

    def _changed_assets(self, old: Mapping[str, Any], new: Mapping[str, Any], depth: int) -> Iterator[str]:
        width = max((len(name) + 2 for name in {*old, *new}), default=0)
        for name in sorted({*old, *new}):
            quoted = f'"{name}"'
            label, was, is_ = f"{quoted:<{width}}: ", old.get(name, ABSENT), new.get(name, ABSENT)
            if was is ABSENT or is_ is ABSENT:
                yield from self.changed_lines(label, was, is_, depth + 1)
            elif is_same_kind(was, is_, ARCHIVE_SIGNATURE) and was.get("hash") != is_.get("hash"):
                yield from self._changed_archive(label, was, is_, depth)
            elif is_same_kind(was, is_, ASSET_SIGNATURE) and was.get("hash") != is_.get("hash"):
                yield from self._changed_asset(label, was, is_, depth)
            elif was.get(SIGNATURE) != is_.get(SIGNATURE):
                yield from self.plain_lines(label, was, depth, "-")
                yield from self.plain_lines(label, is_, depth, "+")

    def _changed_asset(self, label: str, old: Mapping[str, Any], new: Mapping[str, Any], depth: int) -> Iterator[str]:
        hash = _turned(_short(old), _short(new))
        for kind, key in (("file", "path"), ("uri", "uri")):
            if old.get(key) and new.get(key):
                yield f"{lead(depth, '~')}{label}asset({kind}:{hash}) {{ {_turned(str(old[key]), str(new[key]))} }}"
                return
        if "text" in old and "text" in new:
            first, *more = self._changed_text(str(old["text"]), str(new["text"]), depth + 1)
            yield f"{lead(depth, '~')}{label}asset(text:{hash}) {{{first}"
            yield from more
            yield f"{lead(depth)}}}"
            return
        yield from self.plain_lines(label, old, depth, "-")
        yield from self.plain_lines(label, new, depth, "+")

    def _changed_primitive(self, old: Any, new: Any, depth: int) -> list[str]:
        if isinstance(old, str) and isinstance(new, str) and UNKNOWN_VALUE not in (old, new):
            return self._changed_text(old, new, depth)
        was, is_ = self._value_lines(old, depth, "-"), self._value_lines(new, depth, "+")
        return [*was[:-1], f"{was[-1]} => {is_[0]}", *is_[1:]]

    def _changed_text(self, old: str, new: str, depth: int) -> list[str]:
        was, is_ = _decoded(old), _decoded(new)
        if was and is_ and was[1] != is_[1]:
            kind = was[0] if was[0] == is_[0] else f"{was[0]} => {is_[0]}"
            lines = list(self.changed_lines("", was[1], is_[1], depth))
            return [f"({kind}) {lines[0][len(lead(depth)) :]}", *lines[1:]]
        if was and is_:
            old, new = quoted(old), quoted(new)
        if "\n" not in old and "\n" not in new:
            return [f"{quoted(old)} => {quoted(new)}"]
        return ["", *_changed_text_lines(old.split("\n"), new.split("\n"), depth + 1)]

    def _scalar(self, value: Any) -> str:
        if isinstance(value, str) and value != UNKNOWN_VALUE and not self.whole:
            value = _cut(value)
        return value_text(value)


def is_same(old: Any, new: Any) -> bool:
    """Whether two values are the same to people: `true` is not 1."""
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(is_same, old, new))
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return old.keys() == new.keys() and all(is_same(old[key], new[key]) for key in old)
    return bool(old == new) and isinstance(old, bool) == isinstance(new, bool)


def is_map(value: Any) -> bool:
    """Whether it is a map of properties, not one that stands for something else."""
    return isinstance(value, Mapping) and SIGNATURE not in value


def is_same_kind(old: Any, new: Any, signature: str) -> bool:
    """Whether both are marked so."""
    return all(isinstance(value, Mapping) and value.get(SIGNATURE) == signature for value in (old, new))


def _short(value: Mapping[str, Any]) -> str:
    return str(value.get("hash", ""))[:_SHORT_HASH]


def _turned(old: str, new: str) -> str:
    return old if old == new else f"{old}->{new}"


# -- texts and numbers -----------------------------------------------------------------------------------------------


def _changed_text_lines(old: list[str], new: list[str], depth: int) -> Iterator[str]:
    """The lines that differ, with those around them."""
    pieces: list[tuple[str, list[str]]] = []
    for tag, from_, to, start, end in difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            pieces.append((" ", new[start:end]))
        else:
            pieces += [(mark, lines) for mark, lines in (("-", old[from_:to]), ("+", new[start:end])) if lines]
    for number, (mark, lines) in enumerate(pieces):
        told = [line for line in lines if line.strip()]
        if mark == " ":
            told = _context(told, is_first=number == 0, is_last=number == len(pieces) - 1)
        yield from (f"{lead(depth, mark)}{line}" for line in told)


def _context(lines: list[str], *, is_first: bool, is_last: bool) -> list[str]:
    """What is left of lines that stay: a few beside what changes."""
    kept = _CONTEXT_LINES
    if is_first:
        return ["...", *lines[-kept:]] if len(lines) > kept + 1 else lines
    if is_last:
        return [*lines[:kept], "..."] if len(lines) > kept + 1 else lines
    return [*lines[:kept], "...", *lines[-kept:]] if len(lines) > 2 * kept + 1 else lines


def _decoded(text: str) -> tuple[str, Any] | None:
    """The list or map a text is the JSON or, in several lines, the YAML of; with which of the two."""
    text = text.strip()
    for kind, decode in (("json", _from_json), ("yaml", _from_yaml)):
        if kind == "json" or "\n" in text:
            try:
                found = _as_property(decode(text))
            except (ValueError, RecursionError):
                continue
            if isinstance(found, list | dict):
                return kind, found
    return None


def _from_json(text: str) -> Any:
    return json.loads(text) if text[:1] in ("{", "[") else None


def _from_yaml(text: str) -> Any:
    try:
        return yaml.load(text, _WithoutAliases)
    except (yaml.YAMLError, ValueError):  # also several documents
        return None


class _WithoutAliases(yaml.SafeLoader):
    """A few lines of aliases can stand for more text than fits into memory."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias")
        return super().compose_node(parent, index)


def _as_property(value: Any, depth: int = 0) -> Any:
    """The same as a property value: with texts for the keys of its maps.

    Raises:
        ValueError: there is something in it that no property value is, or it is too deep to show.
    """
    if depth > _DEEPEST:
        raise ValueError("too deep")
    if isinstance(value, list):
        return [_as_property(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {str(key): _as_property(item, depth + 1) for key, item in value.items()}
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ValueError(f"a {type(value).__name__}")


def _is_primitive(value: Any) -> bool:
    return not isinstance(value, list | Mapping) or (
        isinstance(value, Mapping) and value.get(SIGNATURE) == SECRET_SIGNATURE
    )


def _is_shown(value: Any) -> bool:
    """Nothing, empty texts, lists and maps only clutter."""
    return value is not None and value not in ("", [], {})


def value_text(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, Mapping):
        if value.get(SIGNATURE) == SECRET_SIGNATURE:
            return "[secret]"
        return "{}" if not value else json.dumps(value)
    if value == UNKNOWN_VALUE:
        return "[unknown]"
    if value is None:
        return "<null>"
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, float) and value.is_integer():
        return f"{value:.0f}"
    return json.dumps(value)


def _cut(text: str) -> str:
    """The start of a long text: a few lines, and of each line not more than fills two on a screen."""
    lines = text.split("\n")
    cut = [line if len(line) <= _LONGEST_LINE else f"{line[:_LONGEST_LINE]}..." for line in lines[:_MOST_LINES]]
    return "\n".join([*cut, "..."] if len(lines) > _MOST_LINES else cut)


def quoted(text: str) -> str:
    """The text as Go's `%q` writes it."""
    return f'"{"".join(_escaped(char) for char in text)}"'


def _escaped(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    code = ord(char)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
