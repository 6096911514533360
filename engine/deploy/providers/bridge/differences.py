"""What changes between a resource's old state and new inputs, by its property table. Pure.

Matches the detailed diffs of the official provider (pulumi-terraform-bridge, detailed diff version 2): members of sets
are matched by value; an added one is named by its place in the new inputs, a removed one by its place in the old
outputs, and both at one place are an update.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from engine.deploy.property import UNKNOWN, PropertyMap, PropertyValue, contains_unknown, strip_secrets
from engine.deploy.provider import DiffKind, DiffResult, PropertyDiff
from engine.deploy.providers.bridge.schema import Kind, Property, Schema, stored_value

_REPLACING = {
    DiffKind.ADD: DiffKind.ADD_REPLACE,
    DiffKind.DELETE: DiffKind.DELETE_REPLACE,
    DiffKind.UPDATE: DiffKind.UPDATE_REPLACE,
}

Difference = tuple[str, DiffKind]
"""A path and how it differs."""


def diff(
    schema: Schema,
    old_outputs: PropertyMap,
    new_inputs: PropertyMap,
    *,
    ignore_changes: Sequence[str] = (),
    also_replace: Sequence[str] = (),
    recomputed: Mapping[str, DiffKind] | None = None,
) -> DiffResult:
    """Compare state with checked inputs.

    Args:
        ignore_changes: top-level properties (or paths in them) not to look at.
        also_replace: properties whose change replaces this time, beside those the table names.
        recomputed: outputs the cloud will choose anew because of the change.
    """
    ignored = {_top(path) for path in ignore_changes}
    changed: dict[str, PropertyDiff] = {}
    replace_keys = []
    for name, prop in schema.properties.items():
        if not prop.is_input or name in ignored:
            continue
        replaces = prop.replace or name in also_replace
        found = list(property_differences(name, prop, strip_secrets(old_outputs.get(name)), new_inputs.get(name)))
        for path, kind in found:
            changed[path] = PropertyDiff(_REPLACING[kind] if replaces else kind)
        if found and replaces:
            replace_keys.append(name)
    for name, kind in (recomputed or {}).items():
        changed[name] = PropertyDiff(kind)
    return DiffResult(
        changes=bool(changed),
        replace_keys=sorted(replace_keys),
        changed_keys=sorted({_top(path) for path in changed}),
        stable_keys=sorted(n for n, p in schema.properties.items() if p.replace and n not in replace_keys),
        delete_before_replace=bool(replace_keys) and _has_chosen_name(schema, new_inputs),
        detailed_diff=changed,
    )


def _top(path: str) -> str:
    return path.split(".", 1)[0].split("[", 1)[0]


def _has_chosen_name(schema: Schema, new_inputs: PropertyMap) -> bool:
    """A name the program chose cannot exist twice (bridge: `nameRequiresDeleteBeforeReplace`)."""
    defaults = new_inputs.get("__defaults") or ()
    return any(p.automatic_name and name not in defaults for name, p in schema.properties.items())


def property_differences(
    path: str, prop: Property, old: PropertyValue, new_input: PropertyValue
) -> Iterator[Difference]:
    """The differences of one property: `old` as stored, `new_input` as the program gave it (may be secret)."""
    given = strip_secrets(new_input)
    if given is None and prop.computed:
        return
    new = prop.default if given is None else stored_value(prop, given)
    if new is UNKNOWN:
        yield path, DiffKind.ADD if old is None else DiffKind.UPDATE
    elif _is_zero(old) and _is_zero(new):
        return
    elif old is None or (old == [] and prop.computed and not prop.element_is_object):
        yield path, DiffKind.ADD
    elif new is None and prop.kind is Kind.MAP:
        yield from ((_entry(path, key), DiffKind.DELETE) for key in sorted(old))
    elif new is None:
        yield path, DiffKind.DELETE
    elif prop.kind is Kind.SET:
        yield from _set_differences(path, prop, old, given or [])
    elif prop.kind is Kind.LIST:
        yield from _list_differences(path, prop, old, given or [])
    elif prop.kind is Kind.MAP:
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                kind = DiffKind.ADD if key not in old else DiffKind.DELETE if key not in new else DiffKind.UPDATE
                yield _entry(path, key), kind
    elif prop.kind in (Kind.OBJECT, Kind.SINGLE):
        for name, nested in prop.fields.items():
            yield from property_differences(f"{path}.{name}", nested, old.get(name), (given or {}).get(name))
    elif not _same(prop, old, new):
        yield path, DiffKind.UPDATE


def _entry(path: str, key: str) -> str:
    """The path of a map's entry; a key that is no plain word is quoted."""
    return f"{path}.{key}" if re.fullmatch(r"\w+", key) else f'{path}["{key}"]'


def _is_zero(value: PropertyValue) -> bool:
    """Absent, empty, false and 0 are one value to the official provider's SDK."""
    return value is None or value == [] or value == {} or value is False or value == "" or value == 0


def _same(prop: Property, old: PropertyValue, new: PropertyValue) -> bool:
    return prop.same(old, new) if prop.same is not None else bool(old == new)


def is_same(prop: Property, old: PropertyValue, new_input: PropertyValue) -> bool:
    """Whether the input still says what is stored."""
    return next(property_differences("", prop, old, new_input), None) is None


def _set_differences(
    path: str, prop: Property, old: Sequence[PropertyValue], given: Sequence[PropertyValue]
) -> Iterator[Difference]:
    assert prop.element is not None
    if prop.kind is Kind.SET and contains_unknown(list(given)):
        yield path, DiffKind.UPDATE
        return
    before = [_member(prop.element, v) for v in old]
    after = [_member(prop.element, stored_value(prop.element, v)) for v in given]
    element = prop.element
    added = {i for i, member in enumerate(after) if not any(_equal(element, old, member) for old in before)}
    removed = {i for i, member in enumerate(before) if not any(_equal(element, member, new) for new in after)}
    for i in sorted(added | removed):
        kind = DiffKind.UPDATE if i in added and i in removed else DiffKind.ADD if i in added else DiffKind.DELETE
        yield f"{path}[{i}]", kind


def _member(prop: Property, value: PropertyValue) -> PropertyValue:
    """A set's member with absent and zero fields made one (`portRange` of an icmp rule is "" or null)."""
    if not isinstance(value, dict):
        return value
    return {n: None if _is_zero(value.get(n)) else _member(nested, value[n]) for n, nested in prop.fields.items()}


def _equal(prop: Property, old: PropertyValue, new: PropertyValue) -> bool:
    """Whether two members are one; a field that the cloud chooses and the program leaves out does not count."""
    if not isinstance(old, dict) or not isinstance(new, dict):
        return bool(old == new)
    return all(old[n] == new[n] or (p.computed and new[n] is None) for n, p in prop.fields.items())


def _list_differences(
    path: str, prop: Property, old: Sequence[PropertyValue], given: Sequence[PropertyValue]
) -> Iterator[Difference]:
    assert prop.element is not None
    for i in range(max(len(old), len(given))):
        if i >= len(old):
            yield f"{path}[{i}]", DiffKind.ADD
        elif i >= len(given):
            yield f"{path}[{i}]", DiffKind.DELETE
        else:
            yield from property_differences(f"{path}[{i}]", prop.element, old[i], given[i])


# ---------------------------------------------------------------------------------------------------- inputs of a read


def inputs_of_state(schema: Schema, old_inputs: PropertyMap, outputs: PropertyMap) -> PropertyMap:
    """What a program would have to say to get this state.

    On refresh an input that still says what is there stays as the program wrote it, a drifted one takes the cloud's
    value. On import ({} as old inputs) everything a program may set and that is not a default is taken.
    """
    if not old_inputs:
        return {"__defaults": [], **_imported(schema.properties, outputs)}
    inputs: PropertyMap = {"__defaults": list(old_inputs.get("__defaults") or [])}
    for name, given in old_inputs.items():
        prop = schema.properties.get(name)
        if prop is None or name.startswith("__"):
            continue
        stored = strip_secrets(outputs.get(name))
        if is_same(prop, stored, given):
            inputs[name] = given
        elif not _is_absent(stored):
            inputs[name] = _input_of(prop, stored)
    return inputs


def _imported(properties: Mapping[str, Property], outputs: PropertyMap) -> PropertyMap:
    inputs: PropertyMap = {}
    for name, prop in properties.items():
        stored = strip_secrets(outputs.get(name))
        if prop.is_input and not _is_zero(stored) and stored != prop.default:
            inputs[name] = _input_of(prop, stored)
    return inputs


def _is_absent(stored: PropertyValue) -> bool:
    return stored is None or stored == []


def _input_of(prop: Property, stored: PropertyValue) -> PropertyValue:
    if prop.kind in (Kind.LIST, Kind.SET):
        assert prop.element is not None
        return [_input_of(prop.element, v) for v in stored]
    if prop.kind is Kind.MAP:
        return dict(stored)
    if prop.kind in (Kind.OBJECT, Kind.SINGLE):
        return {"__defaults": [], **_imported(prop.fields, stored)}
    return stored
