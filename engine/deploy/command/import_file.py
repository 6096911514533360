"""What `pulumi import` is asked to take over: its operands, or the JSON file of `--file`, read and checked.

It looks at no stack and asks no provider. Source: pulumi `pkg/cmd/pulumi/operations/import.go` (importFile).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.deploy.command.arguments import SWITCH, Arguments, UsageError
from engine.deploy.urn import ROOT_STACK_TYPE, is_provider_type

_TEXTS = ("type", "name", "logicalName", "id", "parent", "provider", "version")
_SWITCHES = ("component",)
_REFUSED = {"remote": "remote components", "pluginDownloadUrl": "plugins from a server of their own"}


@dataclass(frozen=True)
class ImportSpec:
    """One resource to take over.

    Attributes:
        name: in the program and in the URN.
        known_as: what other entries of the file call it; the name, unless `logicalName` gives it another in the URN.
        parent, provider: names, of the name table or (`parent`) of another entry; "" means the stack, the default one.
        properties: the inputs to keep; none means all.
        component: it is only a parent; there is nothing in the cloud.
    """

    type: str
    name: str
    id: str
    known_as: str
    parent: str = ""
    provider: str = ""
    version: str = ""
    properties: Sequence[str] = ()
    component: bool = False


@dataclass(frozen=True)
class ImportRequest:
    """All that is to be taken over; `names`: name → URN of what the stack has already."""

    resources: Sequence[ImportSpec]
    names: Mapping[str, str] = field(default_factory=dict)


def read_request(arguments: Arguments, cwd: Path) -> ImportRequest:
    """What the command line asks for.

    Raises:
        UsageError: it asks for nothing, or for what cannot be; the message names the operand or the file's field.
        OSError: the file cannot be read.
    """
    if not (file := arguments.text("file")):
        return _from_operands(arguments)
    if arguments.operands or any(arguments.text(flag) for flag in ("parent", "provider", "properties")):
        raise UsageError("--file says what to import: leave out TYPE NAME ID, --parent, --provider and --properties")
    return _from_file(cwd / file)


def _from_operands(arguments: Arguments) -> ImportRequest:
    type_ = arguments.operand(0, "TYPE NAME ID, or --file FILE")
    name, id = arguments.operand(1, "a NAME after the type"), arguments.operand(2, "the ID of what exists")
    if len(arguments.operands) > 3:
        raise UsageError(f"`pulumi import` takes TYPE NAME ID: {arguments.operands[3]!r} is too much")
    names: dict[str, str] = {}
    parent, provider = (_named_urn(arguments, flag, names) for flag in ("parent", "provider"))
    properties = [p for text in arguments.flags.get("properties", ()) for p in text.split(",") if p]
    spec = ImportSpec(type_, name, id, name, parent, provider, properties=tuple(properties))
    _check(spec, "")
    return ImportRequest([spec], names)


def _named_urn(arguments: Arguments, flag: str, names: dict[str, str]) -> str:
    """The name in `--parent NAME=URN`; it goes into the table."""
    text = arguments.text(flag)
    if not text:
        return ""
    name, equals, urn = text.partition("=")
    if not equals or not name or not urn.startswith("urn:pulumi:"):
        raise UsageError(f"--{flag} {text!r}: it must be NAME=URN, where NAME is its variable in the program")
    if names.setdefault(name, urn) != urn:
        raise UsageError(f"--{flag} {text!r}: {name!r} is the name of another resource already")
    return name


def _from_file(path: Path) -> ImportRequest:
    try:
        document = json.loads(path.read_bytes())
    except ValueError as err:
        raise UsageError(f"{path}: not JSON: {err}") from err
    _mapping(document, f"{path}: the document", {"nameTable", "resources"})
    names = document.get("nameTable") or {}
    _mapping(names, f"{path}: nameTable", None)
    for name, urn in names.items():
        if not isinstance(urn, str) or not urn.startswith("urn:pulumi:"):
            raise UsageError(f"{path}: nameTable.{name}: it must be a URN (urn:pulumi:…), not {_shown(urn)}")
    resources = document.get("resources")
    if not isinstance(resources, list) or not resources:
        raise UsageError(f"{path}: resources: it must be a list of at least one resource, not {_shown(resources)}")
    specs = [_spec(entry, f"{path}: resources[{i}]") for i, entry in enumerate(resources)]
    _check_names(specs, names, path)
    return ImportRequest(specs, names)


def _spec(entry: Any, where: str) -> ImportSpec:
    _mapping(entry, where, {*_TEXTS, *_SWITCHES, *_REFUSED, "properties"})
    for key, what in _REFUSED.items():
        if entry.get(key):
            raise UsageError(f"{where}.{key}: {what}: {SWITCH}")
    for keys, type_, what in ((_TEXTS, str, "a string"), (_SWITCHES, bool, "true or false")):
        for key in keys:
            if not isinstance(entry.get(key, type_()), type_):
                raise UsageError(f"{where}.{key}: it must be {what}, not {_shown(entry[key])}")
    properties = entry.get("properties") or []
    if not isinstance(properties, list) or not all(isinstance(p, str) for p in properties):
        raise UsageError(f"{where}.properties: it must be a list of names of inputs, not {_shown(properties)}")
    texts = {key: entry.get(key, "") for key in _TEXTS}
    spec = ImportSpec(
        texts["type"],
        texts["logicalName"] or texts["name"],
        texts["id"],
        texts["name"],
        texts["parent"],
        texts["provider"],
        texts["version"].removeprefix("v"),
        tuple(properties),
        entry.get("component", False),
    )
    _check(spec, f"{where}.")
    return spec


def _check(spec: ImportSpec, where: str) -> None:
    if len(spec.type.split(":")) != 3 or not all(spec.type.split(":")):
        raise UsageError(f"{where}type: {spec.type!r} is no resource type: write PACKAGE:MODULE:NAME")
    if is_provider_type(spec.type) or spec.type == ROOT_STACK_TYPE:
        raise UsageError(f"{where}type: {spec.type} exists in no cloud and cannot be imported; a program declares it")
    if not spec.known_as:
        raise UsageError(f"{where}name: it is missing: the resource's name in the program")
    if "*" in spec.name or "*" in spec.type:
        raise UsageError(f"{where}name: {spec.name!r} of type {spec.type}: `*` stands for other resources in targets")
    if spec.component and spec.id:
        raise UsageError(f"{where}id: a component exists in no cloud and has no id: leave out `id` or `component`")
    if not spec.component and not spec.id:
        raise UsageError(f"{where}id: it is missing: what the cloud calls the resource")


def _check_names(specs: Sequence[ImportSpec], names: Mapping[str, str], path: Path) -> None:
    """Every name means one thing, and every reference a thing."""
    known = set(names)
    for i, spec in enumerate(specs):
        if spec.known_as in known:
            raise UsageError(f"{path}: resources[{i}].name: {spec.known_as!r} names another resource already")
        known.add(spec.known_as)
    for i, spec in enumerate(specs):
        if spec.parent and spec.parent not in known:
            raise UsageError(f"{path}: resources[{i}].parent: {spec.parent!r} is neither in nameTable nor a resource")
        if spec.provider and spec.provider not in names:
            raise UsageError(f"{path}: resources[{i}].provider: {spec.provider!r} is not in nameTable")
    parents = {spec.known_as: spec.parent for spec in specs}
    for i, spec in enumerate(specs):
        above, seen = spec.parent, {spec.known_as}
        while above in parents:
            if above in seen:
                raise UsageError(f"{path}: resources[{i}].parent: {spec.parent!r} is below the resource itself")
            seen.add(above)
            above = parents[above]


def _mapping(value: Any, where: str, keys: set[str] | None) -> None:
    if not isinstance(value, dict):
        raise UsageError(f"{where}: it must be an object, not {_shown(value)}")
    if keys is not None and (unknown := sorted(value.keys() - keys)):
        raise UsageError(f"{where}: unknown field {unknown[0]!r}; there are {', '.join(sorted(keys))}")


def _shown(value: Any) -> str:
    return json.dumps(value)[:80]
