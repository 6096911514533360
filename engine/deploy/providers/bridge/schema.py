"""Declarative property tables of resource types, and what follows from a table alone.

Types, defaults and replace rules as in the official providers; the pure comparison is in `differences.py`,
nothing here asks the cloud.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from ipaddress import IPv4Address, ip_network
from typing import Any

from engine.deploy.property import UNKNOWN, PropertyMap, PropertyValue, Secret, contains_secret, strip_secrets
from engine.deploy.provider import Autonaming, AutonamingMode, CheckFailure, CheckResult

TIMEOUTS_KEY = "e2bfb730-ecaa-11e6-8f88-34363bc7c4c0"
"""Where the official provider keeps a resource's timeouts inside `__meta` (Terraform's SDK chose this UUID)."""

HIDDEN_KEYS = ("__defaults", "__meta", "__pulumi_raw_state_delta", "id")


class Kind(Enum):
    """The types a property may have; `SINGLE` is a nested object that the official provider keeps as a list of one."""

    STRING = "string"
    NUMBER = "number"
    BOOL = "bool"
    LIST = "list"
    SET = "set"
    MAP = "map"
    OBJECT = "object"
    SINGLE = "single object"


def unchanged(value: PropertyValue) -> PropertyValue:
    """The stored form of most inputs: themselves."""
    return value


def text_hash(value: str) -> str:
    """The stored form of text that is long or secret: its SHA-1."""
    return hashlib.sha1(value.encode(), usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class Property:
    """One property of a resource type.

    Attributes:
        kind, element, fields: its type; `element` of lists, sets and maps, `fields` of objects.
        is_input: a program may set it. required: a program must.
        computed: the cloud chooses it when the program does not, so leaving it out is no change.
        replace: changing it needs a new resource.
        default: what it is when the program leaves it out; written into inputs only if `default_in_inputs`.
        automatic_name: made from the resource's name and seven random digits when left out.
        stored: input → what outputs keep (lower case, a hash).
        same: two non-null stored values that count as equal.
        validate: a sentence on what is wrong with a value, or "".
        renamed: of an object's fields, as in `Schema`.
        left_out: in state only if the program sets it (it came with a later version).
    """

    kind: Kind
    is_input: bool = True
    required: bool = False
    computed: bool = False
    replace: bool = False
    default: PropertyValue = None
    default_in_inputs: bool = False
    automatic_name: bool = False
    element: Property | None = None
    fields: Mapping[str, Property] = field(default_factory=dict)
    stored: Callable[[Any], PropertyValue] = unchanged
    same: Callable[[Any, Any], bool] | None = None
    validate: Callable[[Any], str] | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)
    left_out: bool = False

    @property
    def element_is_object(self) -> bool:
        """Whether it is a list or set of objects, which is never absent from state."""
        return self.element is not None and self.element.kind is Kind.OBJECT


@dataclass(frozen=True)
class Schema:
    """A resource type's properties and how its state is written.

    Attributes:
        renamed: property → the official provider's inner name, where it is not just snake case.
        timeouts_seconds: operation → default, as `__meta` shows them; empty: the type has no `__meta`.
        version: of the state's form, "" for the first.
    """

    properties: Mapping[str, Property]
    renamed: Mapping[str, str] = field(default_factory=dict)
    timeouts_seconds: Mapping[str, int] = field(default_factory=dict)
    version: str = ""


def not_empty(value: str) -> str:
    """Most names and slugs may not be empty text."""
    return "" if value else "must not be empty"


def one_of(*words: str, any_case: bool = False) -> Callable[[str], str]:
    """Refuses other words."""
    known = {word.lower() for word in words} if any_case else set(words)

    def fault(value: str) -> str:
        return "" if (value.lower() if any_case else value) in known else f"must be one of {', '.join(words)}"

    return fault


def at_most(characters: int) -> Callable[[str], str]:
    """Refuses longer text; empty text is fine."""

    def fault(value: str) -> str:
        return "" if len(value) <= characters else f"may have {characters} characters, not {len(value)}"

    return fault


def at_least(lowest: int, highest: int | None = None) -> Callable[[float], str]:
    """Refuses smaller (and, with `highest`, larger) numbers."""

    def fault(value: float) -> str:
        if value >= lowest and (highest is None or value <= highest):
            return ""
        return f"must be at least {lowest}" if highest is None else f"must be between {lowest} and {highest}"

    return fault


def network_range(value: str) -> str:
    """Refuses what is not an address range in CIDR notation."""
    try:
        ip_network(value, strict=False)
    except ValueError:
        return "must be an address range in CIDR notation, like 10.10.10.0/24"
    return "" if "/" in value else "must be an address range in CIDR notation, like 10.10.10.0/24"


def ipv4(value: str) -> str:
    """Refuses what is not an IPv4 address."""
    try:
        IPv4Address(value)
    except ValueError:
        return "must be an IPv4 address"
    return ""


def text(**options: Any) -> Property:
    """A string; empty text is refused for inputs unless `validate` says otherwise."""
    if options.get("is_input", True):
        options.setdefault("validate", not_empty)
    return Property(Kind.STRING, **options)


def output(kind: Kind) -> Property:
    """A value only the cloud knows."""
    return Property(kind, is_input=False, computed=True)


# ---------------------------------------------------------------------------------------------------- check


@dataclass
class _Check:
    failures: list[CheckFailure] = field(default_factory=list)

    def fail(self, path: str, reason: str) -> None:
        self.failures.append(CheckFailure(path, reason))


def check(
    schema: Schema,
    urn: str,
    olds: PropertyMap,
    news: PropertyMap,
    random_seed: bytes,
    autonaming: Autonaming | None = None,
) -> CheckResult:
    """Types coerced as the official provider does, defaults filled in and named in `__defaults`."""
    run = _Check()
    inputs = _check_object(run, "", schema.properties, news)
    if autonaming is not None and autonaming.mode is AutonamingMode.DISABLE:
        _refuse_to_name(run, schema, olds, inputs)
        if run.failures:
            return CheckResult(inputs, tuple(run.failures))
    name = autonaming.proposed_name if autonaming is not None else automatic_name(urn, random_seed)
    defaults = sorted(_fill_defaults(schema, olds, inputs, name))
    inputs["__defaults"] = defaults
    for name, prop in schema.properties.items():
        if prop.required and inputs.get(name) is None:
            run.fail(name, f"missing required property {name!r}: set it in the program")
    return CheckResult(inputs, tuple(run.failures))


def _refuse_to_name(run: _Check, schema: Schema, olds: PropertyMap, inputs: PropertyMap) -> None:
    kept = olds.get("__defaults") or ()
    for name, prop in schema.properties.items():
        if prop.automatic_name and inputs.get(name) is None and not (name in kept and name in olds):
            run.fail(name, "automatic naming is disabled but no explicit name was provided")


def _fill_defaults(schema: Schema, olds: PropertyMap, inputs: PropertyMap, automatic: str) -> list[str]:
    filled = []
    kept = olds.get("__defaults") or ()
    for name, prop in schema.properties.items():
        if inputs.get(name) is not None:
            continue
        if prop.automatic_name:
            inputs[name] = olds[name] if name in kept and name in olds else automatic
            filled.append(name)
        elif prop.default_in_inputs:
            inputs[name] = prop.default
            filled.append(name)
    return filled


def automatic_name(urn: str, random_seed: bytes) -> str:
    """The resource's name, a dash and seven hexadecimal digits; the same seed and URN give the same name."""
    digits = hashlib.sha256(random_seed + b"\0" + urn.encode()).hexdigest()[:7]
    return f"{urn.rsplit('::', 1)[-1]}-{digits}"


def _check_object(run: _Check, prefix: str, properties: Mapping[str, Property], news: PropertyMap) -> PropertyMap:
    inputs: PropertyMap = {}
    for name, value in news.items():
        if name.startswith("__"):
            continue
        path = f"{prefix}.{name}" if prefix else name
        prop = properties.get(name)
        if prop is None or not prop.is_input:
            known = ", ".join(sorted(n for n, p in properties.items() if p.is_input))
            run.fail(path, f"{name!r} is not an input of this resource; inputs: {known}")
        elif value is not None:
            # One secret element makes the whole property secret: state has no finer grain for lists.
            secret = not prefix and contains_secret(value)
            checked = _check_value(run, path, prop, strip_secrets(value) if secret else value)
            inputs[name] = Secret(checked) if secret else checked
    return inputs


def _check_value(run: _Check, path: str, prop: Property, value: PropertyValue) -> PropertyValue:
    if value is UNKNOWN:
        return value
    if prop.kind in (Kind.LIST, Kind.SET):
        return _check_list(run, path, prop, value)
    if prop.kind is Kind.MAP:
        return _check_map(run, path, prop, value)
    if prop.kind in (Kind.OBJECT, Kind.SINGLE):
        return _check_nested(run, path, prop, value)
    try:
        scalar = coerce(prop.kind, value)
    except ValueError as err:
        run.fail(path, str(err))
        return value
    if prop.validate is not None and (reason := prop.validate(scalar)):
        run.fail(path, f"{path} {reason}")
    return scalar


def _check_list(run: _Check, path: str, prop: Property, value: PropertyValue) -> PropertyValue:
    assert prop.element is not None
    if not isinstance(value, list):
        run.fail(path, f"{path} must be a list, not {_describe(value)}")
        return value
    return [_check_value(run, f"{path}[{i}]", prop.element, v) for i, v in enumerate(value)]


def _check_map(run: _Check, path: str, prop: Property, value: PropertyValue) -> PropertyValue:
    assert prop.element is not None
    if not isinstance(value, dict):
        run.fail(path, f"{path} must be a map, not {_describe(value)}")
        return value
    element = prop.element
    return {key: _check_value(run, f"{path}.{key}", element, v) for key, v in value.items() if key != "__defaults"}


def _check_nested(run: _Check, path: str, prop: Property, value: PropertyValue) -> PropertyValue:
    if not isinstance(value, dict):
        run.fail(path, f"{path} must be an object, not {_describe(value)}")
        return value
    checked = _check_object(run, path, prop.fields, value)
    defaults = {n: p.default for n, p in prop.fields.items() if p.default_in_inputs and checked.get(n) is None}
    for name, nested in prop.fields.items():
        if nested.required and checked.get(name) is None:
            run.fail(f"{path}.{name}", f"missing required property {path}.{name}")
    return {"__defaults": sorted(defaults), **checked, **defaults}


def coerce(kind: Kind, value: PropertyValue) -> PropertyValue:
    """Text that reads as a number or a bool is one where the table asks for one, and the other way round.

    Raises:
        ValueError: the sentence says what was expected.
    """
    match kind, value:
        case Kind.STRING, str():
            return value
        case Kind.STRING, bool():
            return "true" if value else "false"
        case Kind.STRING, int() | float():
            return str(integral(value))
        case Kind.BOOL, bool():
            return value
        case Kind.BOOL, "true" | "false":
            return value == "true"
        case Kind.NUMBER, bool():
            pass
        case Kind.NUMBER, int() | float():
            return integral(value)
        case Kind.NUMBER, str():
            try:
                return integral(float(value))
            except ValueError:
                pass
    raise ValueError(f"expected a {kind.value}, not {_describe(value)}")


def _describe(value: PropertyValue) -> str:
    return f"{value!r}" if isinstance(value, str | int | float) else f"a {type(value).__name__}"


def integral(value: float) -> float | int:
    """Whole numbers as int: the wire carries only doubles, and Go writes 5, not 5.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


# ---------------------------------------------------------------------------------------------------- outputs


def stored_inputs(schema: Schema, inputs: PropertyMap) -> PropertyMap:
    """What outputs will say of these inputs (secrets opened), every property of the table present, defaults applied."""
    stored: PropertyMap = {}
    for name, prop in schema.properties.items():
        value = strip_secrets(inputs.get(name)) if prop.is_input else None
        stored[name] = prop.default if value is None else stored_value(prop, value)
    return stored


def stored_value(prop: Property, value: PropertyValue) -> PropertyValue:
    """One input in its stored form: hashed or lower case where the table says so, sets in the official order."""
    if value is None or value is UNKNOWN:
        return value
    if prop.kind in (Kind.LIST, Kind.SET):
        assert prop.element is not None
        items = [stored_value(prop.element, v) for v in value]
        return ordered_set(prop, items) if prop.kind is Kind.SET else items
    if prop.kind in (Kind.OBJECT, Kind.SINGLE):
        fields = {n: nested for n, nested in prop.fields.items() if not (nested.left_out and value.get(n) is None)}
        return {name: _stored_field(nested, value.get(name)) for name, nested in fields.items()}
    if prop.kind is Kind.MAP:
        return {key: v for key, v in value.items() if key != "__defaults"}
    return prop.stored(integral(value) if isinstance(value, float) else value)


def _stored_field(prop: Property, value: PropertyValue) -> PropertyValue:
    if value is None and prop.kind is Kind.SET:
        return []
    return prop.default if value is None else stored_value(prop, value)


def ordered_set(prop: Property, items: Sequence[PropertyValue]) -> list[PropertyValue]:
    """A set's members without repetition in the order the official provider lists them (go-cty: `setRules.Less`)."""
    assert prop.element is not None
    if any(item is UNKNOWN for item in items):
        return list(items)
    members = {_set_bytes(prop.element, item): item for item in items}
    if prop.element.kind is Kind.OBJECT:
        return [members[key] for key in sorted(members, key=str.encode)]
    return sorted(members.values())


def _set_bytes(prop: Property, value: PropertyValue) -> str:
    """The text go-cty orders a set's object members by (`appendSetHashBytes`)."""
    if value is UNKNOWN:
        return "?"
    if value is None:
        return "~"
    if prop.kind in (Kind.OBJECT, Kind.SINGLE):
        names = sorted(prop.fields, key=snake_case)
        return "<" + "".join(_set_bytes(prop.fields[n], value.get(n)) + ";" for n in names) + ">"
    if prop.kind in (Kind.LIST, Kind.SET):
        assert prop.element is not None
        return "[" + "".join(_set_bytes(prop.element, v) + ";" for v in value) + "]"
    if prop.kind is Kind.BOOL:
        return "T" if value else "F"
    return json.dumps(value, ensure_ascii=False)


def snake_case(name: str) -> str:
    """`sourceDropletIds` → `source_droplet_ids`."""
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name)


def complete_outputs(
    schema: Schema, id: str, values: Mapping[str, PropertyValue], inputs: PropertyMap, meta: str
) -> PropertyMap:
    """Outputs as the official provider writes them from plain values.

    Sets in order, what was secret as an input secret again, with `id`, `__meta` and the raw state delta.
    """
    outputs: PropertyMap = {}
    for name, prop in schema.properties.items():
        value = values.get(name)
        if prop.left_out and value is None:
            continue
        if isinstance(value, float):
            value = integral(value)
        if isinstance(value, list) and prop.kind is Kind.SET:
            value = ordered_set(prop, value)
        outputs[name] = value
    delta = raw_state_delta(schema, outputs)
    for name, value in inputs.items():
        if contains_secret(value) and outputs.get(name) is not None:
            outputs[name] = Secret(outputs[name])
    outputs["id"] = id
    outputs["__pulumi_raw_state_delta"] = delta
    if meta:
        outputs["__meta"] = meta
    return outputs


def state_meta(schema: Schema, **timeouts_seconds: float) -> str:
    """The `__meta` text: timeouts in nanoseconds (own ones over the type's) and the schema version."""
    timeouts = {**schema.timeouts_seconds, **{k: v for k, v in timeouts_seconds.items() if v}}
    meta: dict[str, Any] = {}
    if schema.timeouts_seconds:
        meta[TIMEOUTS_KEY] = {k: int(timeouts[k] * 1_000_000_000) for k in sorted(timeouts)}
    if schema.version:
        meta["schema_version"] = schema.version
    return json.dumps(meta, separators=(",", ":")) if meta else ""


def raw_state_delta(schema: Schema, outputs: PropertyMap) -> PropertyMap:
    """How the official provider gets from these outputs back to its own raw state (bridge: `rawStateDelta`)."""
    return _object_delta(schema.properties, outputs, schema.renamed)


def _object_delta(properties: Mapping[str, Property], value: PropertyMap, renamed: Mapping[str, str]) -> PropertyMap:
    deltas = {name: d for name, prop in properties.items() if (d := _value_delta(prop, value.get(name))) is not None}
    inner: PropertyMap = {}
    if deltas:
        inner["ps"] = deltas
    if renamed:
        inner["renamed"] = dict(renamed)
    return {"obj": inner}


def _value_delta(prop: Property, value: PropertyValue) -> PropertyMap | None:
    if prop.kind is Kind.SINGLE:
        if value is None and prop.computed:
            return None
        return {"plu": {"i": _object_delta(prop.fields, value, prop.renamed) if isinstance(value, dict) else {}}}
    if value is None or value is UNKNOWN:
        return None
    if prop.kind in (Kind.LIST, Kind.SET):
        assert prop.element is not None
        items = {str(i): d for i, v in enumerate(value) if (d := _value_delta(prop.element, v)) is not None}
        return {"arr": {"el": items} if items else {}}
    if prop.kind is Kind.MAP:
        return {"map": {}}
    if prop.kind is Kind.OBJECT:
        return _object_delta(prop.fields, value, prop.renamed)
    return None
