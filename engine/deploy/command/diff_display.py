"""`--diff`: every step with what it changes, property by property, and `details` of the confirmation prompt.

Reads engine events only. Source: pulumi `pkg/backend/display/{diff,object_diff}.go`; the form is that of
recordings of the official engine.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from engine.deploy.command.display import OP_PREFIXES, OP_STYLES, ProgressDisplay, Row, is_default_provider, top_key
from engine.deploy.command.property_text import ABSENT, PropertyText, is_same, lead, value_text
from engine.deploy.diff import parse_path, path_contains

_MADE = frozenset({"create", "create-replacement", "import", "read"})
_GONE = frozenset({"delete", "delete-replaced", "discard"})


class DiffDisplay(ProgressDisplay):
    """Prints steps as they begin, then diagnostics and outputs, then the summary."""

    @property
    def _text(self) -> PropertyText:
        return PropertyText(whole=self._showing.whole)

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
            depth = self._depth(metadata.get("new") or {}) + 1
            if lines := list(_changed_outputs(metadata, depth, self._text)):
                self._say(f"{'    ' * depth}--outputs:--")
                for line in lines:
                    self._say(line, OP_STYLES["update"])

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
        depth = self._depth(state)
        column = 4 * depth
        style = OP_STYLES.get(row.op, "")
        self._say(f"{' ' * column}{OP_PREFIXES[row.op]}{metadata['type']}: ({row.op})", style)
        facts = ((metadata.get("old") or {}).get("id"), metadata["urn"], state.get("provider"))
        for name, text in zip(("id", "urn", "provider"), facts, strict=True):
            if text and (name != "provider" or "::default" not in text):
                self._say(f"{' ' * (column + 4)}[{name}={text}]")
        if not self._is_root(row):
            for line in self._properties(row, depth + 1):
                self._say(line, style)

    def _properties(self, row: Row, depth: int) -> Iterator[str]:
        old, new = row.metadata.get("old") or {}, row.metadata.get("new") or {}
        if row.op in _MADE:
            return self._text.member_lines(_shown(new.get("inputs")), depth, " ")
        if row.op in _GONE:
            return self._text.member_lines(_shown(old.get("inputs")), depth, " ")
        return _differences(row.metadata, depth, self._text)

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
            self._say(text)


def _differences(metadata: Mapping[str, Any], depth: int, text: PropertyText) -> Iterator[str]:
    """What an update changes: what the provider says, and where it says nothing, what the inputs say."""
    old, new = metadata.get("old") or {}, metadata.get("new") or {}
    before, after = _shown(old.get("inputs")), _shown(new.get("inputs"))
    detailed = metadata.get("detailedDiff") or {}
    hidden = [path for path in (new or old).get("hideDiffs") or () if _hides(path, detailed or {**before, **after})]
    for path in sorted(hidden):
        yield f"{lead(depth, '~')}{path} (hidden)"
    told = {path: diff for path, diff in detailed.items() if not any(_hides(h, [path]) for h in hidden)}
    if not detailed:
        before, after = ({k: v for k, v in m.items() if k not in hidden} for m in (before, after))
        yield from text.changed_members(before, after, depth)
    detailed, keys = told, {top_key(path) for path in told}
    if not keys:
        return
    known = _shown(old.get("outputs"))
    for path, diff in detailed.items():
        key = top_key(path)
        if not diff.get("inputDiff") and key not in before and key in known:
            before[key] = known[key]  # a difference from what is, not from what was asked for
    width = max(len(key) for key in keys)
    for key in sorted(keys):
        was, is_ = before.get(key, ABSENT), after.get(key, ABSENT)
        if is_same(was, is_):  # secrets look alike
            same = "[secret]" if was is ABSENT else value_text(was)
            yield f"{lead(depth, '~')}{key:<{width}}: {same} => {same}"
        else:
            yield from text.changed_lines(f"{key:<{width}}: ", was, is_, depth)


def _hides(hidden: str, paths: Iterable[str]) -> bool:
    """Whether a path of `hideDiffs` covers one of these."""
    outer = _parts(hidden)
    return any(path_contains(outer, _parts(path)) for path in paths)


def _parts(path: str) -> list[str | int]:
    try:
        return parse_path(path)
    except ValueError:
        return [path]  # a key that is no path


def _changed_outputs(metadata: Mapping[str, Any], depth: int, text: PropertyText) -> Iterator[str]:
    """Outputs that changed otherwise than the inputs already say."""
    old, new = metadata.get("old") or {}, metadata.get("new") or {}
    before, after, asked = _shown(old.get("outputs")), _shown(new.get("outputs")), _shown(new.get("inputs"))
    width = max((len(k) for k in {*before, *after}), default=0)
    for key in sorted({*before, *after}):
        was, is_ = before.get(key, ABSENT), after.get(key, ABSENT)
        if not is_same(was, is_) and is_ != asked.get(key, ABSENT):
            yield from text.changed_lines(f"{key:<{width}}: ", was, is_, depth)


def _shown(value: Any) -> dict[str, Any]:
    """Inputs as people wrote them: without the provider's own notes (`__defaults`)."""
    return {k: v for k, v in (value or {}).items() if not k.startswith("__")}
