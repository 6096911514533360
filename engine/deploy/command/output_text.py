"""Stack outputs as an update prints them: indented, aligned, with marks where they changed.

Reads the JSON form events carry (secrets already hidden). Source: pulumi `pkg/backend/display/object_diff.go`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from engine.deploy.property import SECRET_SIGNATURE, SIGNATURE, UNKNOWN_VALUE

_ABSENT = object()


def outputs_text(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> str:
    """The lines below "Outputs:"; "" without outputs. `old` None: nothing was there, so nothing is marked."""
    before = new if old is None else old
    keys = sorted({*new, *before})
    width = max((len(k) for k in keys), default=0)
    lines: list[str] = []
    for key in keys:
        lines += _member(f"{key:<{width}}: ", before.get(key, _ABSENT), new.get(key, _ABSENT), depth=1)
    return "\n".join(lines)


def _member(label: str, old: Any, new: Any, depth: int) -> list[str]:
    if old is _ABSENT:
        return _plain(label, new, depth, "+")
    if new is _ABSENT:
        return _plain(label, old, depth, "-")
    if old == new:
        return _plain(label, new, depth, " ")
    if isinstance(old, list) and isinstance(new, list):
        return _list(label, old, new, depth)
    if _is_map(old) and _is_map(new):
        return _map(label, old, new, depth)
    return [f"{_indent(depth, '~')}{label}{_scalar(old)} => {_scalar(new)}"]


def _list(label: str, old: list[Any], new: list[Any], depth: int) -> list[str]:
    lines = [f"{_indent(depth, '~')}{label}["]
    for index in range(max(len(old), len(new))):
        before = old[index] if index < len(old) else _ABSENT
        after = new[index] if index < len(new) else _ABSENT
        lines += _member(f"[{index}]: ", before, after, depth + 1)
    return [*lines, f"{_indent(depth, ' ')}]"]


def _map(label: str, old: Mapping[str, Any], new: Mapping[str, Any], depth: int) -> list[str]:
    keys = sorted({*old, *new})
    width = max((len(k) for k in keys), default=0)
    lines = [f"{_indent(depth, '~')}{label}{{"]
    for key in keys:
        lines += _member(f"{key:<{width}}: ", old.get(key, _ABSENT), new.get(key, _ABSENT), depth + 1)
    return [*lines, f"{_indent(depth, ' ')}}}"]


def _plain(label: str, value: Any, depth: int, mark: str) -> list[str]:
    head = f"{_indent(depth, mark)}{label}"
    if isinstance(value, list) and value:
        lines = [f"{head}["]
        for index, item in enumerate(value):
            lines += _plain(f"[{index}]: ", item, depth + 1, mark)
        return [*lines, f"{_indent(depth, mark)}]"]
    if _is_map(value) and value:
        width = max(len(k) for k in value)
        lines = [f"{head}{{"]
        for key in sorted(value):
            lines += _plain(f"{key:<{width}}: ", value[key], depth + 1, mark)
        return [*lines, f"{_indent(depth, mark)}}}"]
    return [head + _scalar(value)]


def _indent(depth: int, mark: str) -> str:
    return "    " * (depth - 1) + f"  {mark} "


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
