"""Comparisons the engine makes itself: property paths, ignoreChanges, replaceOnChanges, plain inputs.

Providers compare resources (`provider.py`); this never asks one. Source: pulumi `step_generator.go`,
`sdk/go/common/resource/property_path.go`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from engine.deploy.property import PropertyMap, PropertyValue, Secret
from engine.deploy.provider import DiffKind, DiffResult, PropertyDiff
from engine.deploy.resource import ResourceState

INIT_ERRORS_PATH = "#initerror"  # replaceOnChanges may name it: replace what is not usable instead of updating it
_MISSING = object()
_PATH_PART = re.compile(r'\.?([^.\["\]]+)|\[(\d+|\*)\]|\["((?:[^"\\]|\\.)*)"\]')


def parse_path(path: str) -> list[str | int]:
    """The parts of a property path: `tags[1]`, `labels[0].value`, `a["b.c"]`, `*`.

    Raises:
        ValueError: not a path.
    """
    parts: list[str | int] = []
    position = 0
    while position < len(path):
        match = _PATH_PART.match(path, position)
        if match is None:
            raise ValueError(f"malformed property path {path!r} at position {position}")
        name, index, quoted = match.groups()
        if name is not None:
            parts.append(name)
        elif index is not None:
            parts.append(index if index == "*" else int(index))
        else:
            parts.append(re.sub(r"\\(.)", r"\1", quoted))
        position = match.end()
    return parts


def path_contains(outer: Sequence[str | int], inner: Sequence[str | int]) -> bool:
    """Whether `outer` is `inner` or one of its ancestors; `*` stands for any part."""
    return len(outer) <= len(inner) and all(o == "*" or o == i for o, i in zip(outer, inner, strict=False))


def apply_ignore_changes(old: PropertyMap, new: PropertyMap, paths: Sequence[str]) -> PropertyMap:
    """The new inputs with the ignored paths set back to their old values; a path the old lacks is removed."""
    result: PropertyValue = new
    for path in paths:
        result = _reset(result, old, parse_path(path))
    merged: PropertyMap = result
    return merged


def _reset(new: PropertyValue, old: PropertyValue, path: Sequence[str | int]) -> PropertyValue:
    if not path:
        return old
    part, rest = path[0], path[1:]
    if isinstance(new, Secret) or isinstance(old, Secret):
        opened = _reset(_open(new), _open(old), path)
        return Secret(opened)
    if part == "*":
        for key in _keys(new, old):
            new = _reset(new, old, [key, *rest])
        return new
    if isinstance(new, dict) and isinstance(part, str):
        return _reset_key(new, old if isinstance(old, dict) else {}, part, rest)
    if isinstance(new, list) and isinstance(part, int):
        olds = old if isinstance(old, list) else []
        if part >= len(new) or part >= len(olds):
            return new
        return [*new[:part], _reset(new[part], olds[part], rest), *new[part + 1 :]]
    return new


def _open(value: PropertyValue) -> PropertyValue:
    return value.value if isinstance(value, Secret) else value


def _keys(new: PropertyValue, old: PropertyValue) -> list[str | int]:
    if isinstance(new, dict):
        return [*new, *(k for k in old if k not in new)] if isinstance(old, dict) else list(new)
    return list(range(len(new))) if isinstance(new, list) else []


def _reset_key(new: PropertyMap, old: PropertyMap, key: str, rest: Sequence[str | int]) -> PropertyMap:
    if not rest:
        if key in old:
            return {**new, key: old[key]}
        return {k: v for k, v in new.items() if k != key}
    if key not in new:
        return new
    return {**new, key: _reset(new[key], old.get(key), rest)}


def apply_replace_on_changes(diff: DiffResult, paths: Sequence[str], has_init_errors: bool) -> DiffResult:
    """The diff with everything under a replaceOnChanges path turned into a reason to replace."""
    if not paths or (not diff.changes and not has_init_errors):
        return diff
    parsed = [parse_path(p) for p in paths]

    def forces(path: str) -> bool:
        return any(path_contains(p, parse_path(path)) for p in parsed)

    detailed = {p: _to_replace(d) if forces(p) else d for p, d in diff.detailed_diff.items()}
    keys = [*diff.replace_keys, *(k for k in diff.changed_keys if k not in diff.replace_keys and forces(k))]
    for path, difference in detailed.items():
        top = str(parse_path(path)[0])
        if difference.kind.is_replace and top not in keys:
            keys.append(top)
    if has_init_errors and forces(INIT_ERRORS_PATH):
        keys.append(INIT_ERRORS_PATH)
        return replace(diff, changes=True, replace_keys=keys, detailed_diff=detailed)
    return replace(diff, replace_keys=keys, detailed_diff=detailed)


def _to_replace(difference: PropertyDiff) -> PropertyDiff:
    kind = difference.kind
    return difference if kind.is_replace else replace(difference, kind=DiffKind(f"{kind.value}-replace"))


def diff_inputs(old: PropertyMap, new: PropertyMap) -> DiffResult:
    """Plain comparison of inputs: what the engine does for components and for providers that cannot say."""
    if old == new:
        return DiffResult(changes=False)
    detailed = dict(_differences(old, new, ""))
    changed = [k for k in dict.fromkeys([*new, *old]) if old.get(k, _MISSING) != new.get(k, _MISSING)]
    return DiffResult(changes=True, changed_keys=changed, detailed_diff=detailed)


def _differences(old: PropertyValue, new: PropertyValue, path: str) -> Iterator[tuple[str, PropertyDiff]]:
    old, new = _open(old), _open(new)
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys([*new, *old]):
            yield from _differences(old.get(key, _MISSING), new.get(key, _MISSING), _join(path, key))
    elif isinstance(old, list) and isinstance(new, list):
        for n in range(max(len(old), len(new))):
            was, will = (old[n] if n < len(old) else _MISSING), (new[n] if n < len(new) else _MISSING)
            yield from _differences(was, will, f"{path}[{n}]")
    elif old is _MISSING:
        yield path, PropertyDiff(DiffKind.ADD, input_diff=True)
    elif new is _MISSING:
        yield path, PropertyDiff(DiffKind.DELETE, input_diff=True)
    elif old != new:
        yield path, PropertyDiff(DiffKind.UPDATE, input_diff=True)


def _join(path: str, key: str) -> str:
    if re.fullmatch(r"[A-Za-z_$][\w$]*", key):
        return f"{path}.{key}" if path else key
    return f'{path}["{key}"]'


_INVERSE = {
    DiffKind.ADD: DiffKind.DELETE,
    DiffKind.DELETE: DiffKind.ADD,
    DiffKind.ADD_REPLACE: DiffKind.DELETE_REPLACE,
    DiffKind.DELETE_REPLACE: DiffKind.ADD_REPLACE,
}


def invert(diff: DiffResult) -> DiffResult:
    """The same difference seen from the other side: a refresh shows what the cloud did, not what a program would."""
    detailed = {p: replace(d, kind=_INVERSE.get(d.kind, d.kind)) for p, d in diff.detailed_diff.items()}
    return replace(diff, detailed_diff=detailed)


def is_same_record(old: ResourceState, new: ResourceState) -> bool:
    """Whether storing `new` instead of `old` would change nothing but the order of sets."""
    return _comparable(old) == _comparable(new)


def _comparable(state: ResourceState) -> ResourceState:
    dependencies: Mapping[str, Sequence[str]] = {k: sorted(v) for k, v in state.property_dependencies.items() if v}
    return state.with_(
        dependencies=sorted(state.dependencies),
        property_dependencies=dependencies,
        additional_secret_outputs=sorted(state.additional_secret_outputs),
        init_errors=list(state.init_errors),
        aliases=(),
        ignore_changes=list(state.ignore_changes),
        hide_diffs=list(state.hide_diffs),
        replace_on_changes=list(state.replace_on_changes),
        replace_with=list(state.replace_with),
        custom_timeouts=dict(state.custom_timeouts),
        hooks={when: list(names) for when, names in state.hooks.items()},
        extra={},
    )
