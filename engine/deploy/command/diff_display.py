"""`--diff`: every step with what it changes, property by property, and `details` of the confirmation prompt.

Reads engine events only. Source: pulumi `pkg/backend/display/{diff,object_diff}.go`; the form is that of
recordings of the official engine.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from engine.deploy.command.display import OP_PREFIXES, OP_STYLES, ProgressDisplay, Row, is_default_provider, top_key
from engine.deploy.diff import parse_path, path_contains
from engine.deploy.property import SECRET_SIGNATURE, SIGNATURE, UNKNOWN_VALUE

_ABSENT = object()
_MADE = frozenset({"create", "create-replacement", "import", "read"})
_GONE = frozenset({"delete", "delete-replaced", "discard"})


class DiffDisplay(ProgressDisplay):
    """Prints steps as they begin, then diagnostics and outputs, then the summary."""

    def emit(self, event: Mapping[str, Any]) -> None:
        """Print what an event changes; here no blank line stands between the heading and the first step."""
        if prelude := event.get("preludeEvent"):
            self._configuration(prelude)
        else:
            super().emit(event)

    def _before(self, metadata: Mapping[str, Any]) -> None:
        if is_default_provider(metadata["urn"]):
            return
        row = self._row(metadata["urn"])
        first = not row.metadata
        row.op, row.metadata = metadata["op"], metadata
        half = row.op in ("create-replacement", "delete-replaced") and not self._showing.replacement_steps
        if half or not (self._is_of_interest(row) or (first and self._is_root(row))):
            return
        self._print_step(row)

    def _after(self, metadata: Mapping[str, Any]) -> None:
        if is_default_provider(metadata["urn"]):
            return
        row = self._row(metadata["urn"])
        row.metadata = metadata
        if metadata["op"] == "update" and row.shown and not self._is_root(row) and not self._planning:
            column = 4 * self._depth(metadata.get("new") or {}) + 4
            if lines := list(_changed_outputs(metadata, column)):
                self._say(f"{' ' * column}--outputs:--")
                for line in lines:
                    self._say(self._shortened(line), OP_STYLES["update"])

    def _diagnostic(self, event: Mapping[str, Any]) -> None:
        if event["severity"] == "debug" or event.get("ephemeral"):
            return
        row = self._row(event.get("urn", ""))
        row.messages.append((event["severity"], str(event["message"])))
        tell = self._console.error if event["severity"] in ("error", "warning") else self._console.out
        tell(f"{event.get('prefix', '')}{event['message']}".rstrip("\n"))

    def _print_diagnostics(self) -> None:
        """They were told as they came."""

    def _print(self, row: Row) -> None:
        row.shown = True

    def _print_step(self, row: Row) -> None:
        metadata, row.shown = row.metadata, True
        state = metadata.get("new") or metadata.get("old") or {}
        column = 4 * self._depth(state)
        style = OP_STYLES.get(row.op, "")
        self._say(f"{' ' * column}{OP_PREFIXES[row.op]}{metadata['type']}: ({row.op})", style)
        facts = ((metadata.get("old") or {}).get("id"), metadata["urn"], state.get("provider"))
        for name, text in zip(("id", "urn", "provider"), facts, strict=True):
            if text and (name != "provider" or "::default" not in text):
                self._say(f"{' ' * (column + 4)}[{name}={text}]")
        if not self._is_root(row):
            for line in self._properties(row, column + 4):
                self._say(self._shortened(line), style)

    def _properties(self, row: Row, column: int) -> Iterator[str]:
        old, new = row.metadata.get("old") or {}, row.metadata.get("new") or {}
        if row.op in _MADE:
            return plain_members(_shown(new.get("inputs")), column)
        if row.op in _GONE:
            return plain_members(_shown(old.get("inputs")), column)
        return _differences(row.metadata, column)

    def _depth(self, state: Mapping[str, Any]) -> int:
        depth, parent = 0, str(state.get("parent") or "")
        while parent in self._rows:
            depth += 1
            above = self._rows[parent].metadata
            parent = str((above.get("new") or above.get("old") or {}).get("parent") or "")
        return depth

    def _print_outputs(self) -> None:
        root = self._rows.get(self._root_urn)
        metadata = root.metadata if root is not None else {}
        new = (metadata.get("new") or {}).get("outputs") or {}
        old = (metadata.get("old") or {}).get("outputs") if metadata.get("op") != "create" else None
        if text := self._outputs_text(old, new):
            self._say("    --outputs:--")
            self._say(self._shortened(text))


def _differences(metadata: Mapping[str, Any], column: int) -> Iterator[str]:
    """What an update changes: what the provider says, and where it says nothing, what the inputs say."""
    old, new = metadata.get("old") or {}, metadata.get("new") or {}
    before, after = _shown(old.get("inputs")), _shown(new.get("inputs"))
    detailed = metadata.get("detailedDiff") or {}
    hidden = [path for path in (new or old).get("hideDiffs") or () if _hides(path, detailed or {**before, **after})]
    for path in sorted(hidden):
        yield f"{_lead(column, '~ ')}{path} (hidden)"
    shown = {path: diff for path, diff in detailed.items() if not any(_hides(h, [path]) for h in hidden)}
    if not detailed:
        before, after = ({k: v for k, v in m.items() if k not in hidden} for m in (before, after))
        yield from changed_members(before, after, column)
    detailed, keys = shown, {top_key(path) for path in shown}
    if not keys:
        return
    known = _shown(old.get("outputs"))
    for path, diff in detailed.items():
        key = top_key(path)
        if not diff.get("inputDiff") and key not in before and key in known:
            before[key] = known[key]  # a difference from what is, not from what was asked for
    width = max(len(key) for key in keys)
    for key in sorted(keys):
        was, is_ = before.get(key, _ABSENT), after.get(key, _ABSENT)
        if was == is_:  # secrets look alike
            text = "[secret]" if was is _ABSENT else _scalar(was)
            yield f"{_lead(column, '~ ')}{key:<{width}}: {text} => {text}"
        else:
            yield from _changed(f"{key:<{width}}: ", was, is_, column, 4)


def _hides(hidden: str, paths: Iterable[str]) -> bool:
    """Whether a path of `hideDiffs` covers one of these."""
    outer = _parts(hidden)
    return any(path_contains(outer, _parts(path)) for path in paths)


def _parts(path: str) -> list[str | int]:
    try:
        return parse_path(path)
    except ValueError:
        return [path]  # a key that is no path


def _changed_outputs(metadata: Mapping[str, Any], column: int) -> Iterator[str]:
    """Outputs that changed otherwise than the inputs already say."""
    old, new = metadata.get("old") or {}, metadata.get("new") or {}
    before, after, asked = _shown(old.get("outputs")), _shown(new.get("outputs")), _shown(new.get("inputs"))
    width = max((len(k) for k in {*before, *after}), default=0)
    for key in sorted({*before, *after}):
        was, is_ = before.get(key, _ABSENT), after.get(key, _ABSENT)
        if was != is_ and is_ != asked.get(key, _ABSENT):
            yield from _changed(f"{key:<{width}}: ", was, is_, column, 4)


def _shown(value: Any) -> dict[str, Any]:
    """Inputs as people wrote them: without the provider's own notes (`__defaults`)."""
    return {k: v for k, v in (value or {}).items() if not k.startswith("__")}


def changed_members(old: Mapping[str, Any], new: Mapping[str, Any], column: int) -> Iterator[str]:
    """The members of two maps that differ, as lines whose texts begin at `column`, two to the right of the marks."""
    keys = sorted(k for k in {*old, *new} if not k.startswith("__") and old.get(k, _ABSENT) != new.get(k, _ABSENT))
    width = max((len(k) for k in keys), default=0)
    for key in keys:
        yield from _changed(f"{key:<{width}}: ", old.get(key, _ABSENT), new.get(key, _ABSENT), column, 4)


def plain_members(members: Mapping[str, Any], column: int, mark: str = "  ") -> Iterator[str]:
    """All members of a map, each line with the same mark."""
    keys = sorted(k for k, v in members.items() if not k.startswith("__") and v is not None)
    width = max((len(k) for k in keys), default=0)
    for key in keys:
        yield from _plain(f"{key:<{width}}: ", members[key], column, mark, mark)


def _changed(label: str, old: Any, new: Any, column: int, step: int) -> Iterator[str]:
    """One member or element that differs; `step`: how much further right its own members are."""
    if old is _ABSENT:
        yield from _plain(label, new, column, "+ ", "+ ", step)
    elif new is _ABSENT:
        yield from _plain(label, old, column, "- ", "- ", step)
    elif isinstance(old, list) and isinstance(new, list):
        yield f"{_lead(column, '~ ')}{label}["
        for index in range(max(len(old), len(new))):
            before = old[index] if index < len(old) else _ABSENT
            after = new[index] if index < len(new) else _ABSENT
            if before != after:
                yield from _changed(f"[{index}]: ", before, after, column + 4, 8)
        yield f"{' ' * column}]"
    elif _is_map(old) and _is_map(new):
        yield f"{_lead(column, '~ ')}{label}{{"
        yield from changed_members(old, new, column + step)
        yield f"{' ' * (column + step - 4)}}}"
    else:
        yield f"{_lead(column, '~ ')}{label}{_scalar(old)} => {_scalar(new)}"


def _plain(label: str, value: Any, column: int, mark: str, inner: str, step: int = 4) -> Iterator[str]:
    lead = _lead(column, mark)
    if isinstance(value, list) and value:
        yield f"{lead}{label}["
        for index, item in enumerate(value):
            # The mark of an added or deleted list's element stands below the list's own.
            head = f"{_lead(column, mark)}    [{index}]: "
            if _is_map(item) and item:
                yield f"{head}{{"
                yield from plain_members(item, column + 8, inner)
                yield f"{' ' * (column + 4)}}}"
            else:
                yield head + _scalar(item)
        yield f"{' ' * column}]"
    elif _is_map(value) and value:
        yield f"{lead}{label}{{"
        yield from plain_members(value, column + step, inner)
        yield f"{' ' * (column + step - 4)}}}"
    else:
        yield f"{lead}{label}{_scalar(value)}"


def _lead(column: int, mark: str) -> str:
    return " " * (column - 2) + mark


def _is_map(value: Any) -> bool:
    return isinstance(value, Mapping) and SIGNATURE not in value


def _scalar(value: Any) -> str:
    if isinstance(value, Mapping):
        if value.get(SIGNATURE) == SECRET_SIGNATURE:
            return "[secret]"
        return "{}" if not value else json.dumps(value)
    if value == UNKNOWN_VALUE:
        return "[unknown]"
    return "<null>" if value is None else json.dumps(value, ensure_ascii=False)
