"""`pulumi:autonaming`: which name a resource gets that the program gives none. Pure.

A provider makes the name; this says what it is to make. Source: pulumi `pkg/cmd/pulumi/autonaming`,
`pkg/resource/autonaming`.
"""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from engine.deploy.chacha8 import ChaCha8
from engine.deploy.diff import parse_path
from engine.deploy.provider import Autonaming, AutonamingMode
from engine.deploy.update_target import UpdateTarget
from engine.deploy.urn import package_of, urn_name, urn_type

CONFIG_KEY = "pulumi:autonaming"
_RANDOM = re.compile(r"\$\{(hex|alphanum|string|num)\((\d+)\)\}")
_CONFIG = re.compile(r"\$\{config\.([^}]+)\}")
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_DIGITS = "0123456789"
_ALPHABETS = {"alphanum": _LETTERS + _DIGITS, "string": _LETTERS, "num": _DIGITS}
_NAMING_KEYS = frozenset({"mode", "pattern", "enforce"})


class AutonamingError(Exception):
    """The configuration says something impossible; the message names it."""


@dataclass(frozen=True)
class Naming:
    """One section of the configuration. `mode`: default, verbatim, disabled, or pattern."""

    mode: str = "default"
    pattern: str = ""
    enforce: bool = False

    def autonaming(self, urn: str, seed: bytes) -> tuple[Autonaming | None, bool]:
        """What a resource gets; and whether that name is always the same, so that the old one must go first."""
        if self.mode == "default":
            return None, False
        if self.mode == "verbatim":
            return Autonaming(urn_name(urn), AutonamingMode.ENFORCE), True
        if self.mode == "disabled":
            return Autonaming("", AutonamingMode.DISABLE), True
        name, is_random = generate_name(self.pattern, urn, seed)
        mode = AutonamingMode.ENFORCE if self.enforce else AutonamingMode.PROPOSE
        return Autonaming(name, mode, warn=self.enforce), not is_random


@dataclass(frozen=True)
class Autonamer:
    """The whole configuration; the most specific section counts.

    Attributes:
        providers: package → its section; resources: type → its section.
    """

    root: Naming = field(default_factory=Naming)
    providers: Mapping[str, Naming] = field(default_factory=dict)
    resources: Mapping[str, Naming] = field(default_factory=dict)

    def autonaming(self, urn: str, seed: bytes) -> Autonaming | None:
        """How a resource is to be named; None: as its provider does without being told."""
        naming, is_specific = self._naming(urn)
        found, _ = naming.autonaming(urn, seed)
        return replace(found, warn=True) if found is not None and is_specific else found

    def deletes_first(self, urn: str) -> bool:
        """Whether a new copy would have the old one's name."""
        return self._naming(urn)[0].autonaming(urn, b"")[1]

    def _naming(self, urn: str) -> tuple[Naming, bool]:
        type_ = urn_type(urn)
        for sections, key in ((self.resources, type_), (self.providers, package_of(type_))):
            if key in sections:
                return sections[key], True
        return self.root, False


def generate_name(pattern: str, urn: str, seed: bytes) -> tuple[str, bool]:
    """The name a pattern makes, and whether any of it is random; stack expressions were filled in before."""
    named = pattern.replace("${name}", urn_name(urn))
    random = ChaCha8(hashlib.sha256(seed).digest())
    name = named
    for kind in ("hex", *_ALPHABETS):  # in this order, so that a seed makes the official engine's name
        name = _RANDOM.sub(_filler(kind, random), name)
    while "${uuid}" in name:
        name = name.replace("${uuid}", str(uuid.UUID(bytes=random.read(16))))
    return name, name != named


def _filler(kind: str, random: ChaCha8) -> Callable[[re.Match[str]], str]:
    def fill(match: re.Match[str]) -> str:
        if match[1] != kind:
            return match[0]
        size = int(match[2])
        if kind == "hex":
            return random.read(size // 2 + 1).hex()[:size]
        return "".join(_ALPHABETS[kind][random.below(len(_ALPHABETS[kind]))] for _ in range(size))

    return fill


def read_autonamer(target: UpdateTarget) -> Autonamer | None:
    """The stack's configuration of names; None where there is none.

    Raises:
        AutonamingError: it is wrong.
    """
    text = target.config.get(CONFIG_KEY)
    if text is None:
        return None
    try:
        data = json.loads(text)
    except ValueError as err:
        raise AutonamingError(f"`{CONFIG_KEY}` must be an object, not {text!r}") from err
    providers, resources = {}, {}
    section = _object(data, {*_NAMING_KEYS, "providers"}, CONFIG_KEY)
    root = _naming(section, "root naming config", target) or Naming()
    for package, inside in _object(section.get("providers"), None, f"{CONFIG_KEY}.providers").items():
        what = f"naming config for provider {package!r}"
        section = _object(inside, {*_NAMING_KEYS, "resources"}, what)
        providers[package] = _naming(section, what, target) or root
        for type_, part in _object(section.get("resources"), None, f"`resources` of {what}").items():
            what_type = f"naming config for resource {type_!r}"
            naming = _naming(_object(part, set(_NAMING_KEYS), what_type), what_type, target)
            if naming is None:
                raise AutonamingError(f"mode or pattern must be specified for resource {type_!r}")
            if package_of(type_) == package:
                resources[type_] = naming
    return Autonamer(root, providers, resources)


def _object(value: Any, keys: set[str] | None, what: str) -> dict[str, Any]:
    value = {} if value is None and keys is None else value
    if not isinstance(value, dict):
        raise AutonamingError(f"{what} must be an object, not {json.dumps(value)}")
    if keys is not None and (unknown := sorted(value.keys() - keys)):
        raise AutonamingError(f"{what} has an unknown field {unknown[0]!r}; it may have {', '.join(sorted(keys))}")
    return value


def _naming(section: Mapping[str, Any], what: str, target: UpdateTarget) -> Naming | None:
    """A section's naming; None where it says nothing."""
    mode, pattern, enforce = (section.get(key) for key in ("mode", "pattern", "enforce"))
    for key, value, kind in (("mode", mode, str), ("pattern", pattern, str), ("enforce", enforce, bool)):
        if value is not None and not isinstance(value, kind):
            raise AutonamingError(f"{what}: {key} must be a {kind.__name__}, not {json.dumps(value)}")
    if mode is not None and (pattern is not None or enforce is not None):
        raise AutonamingError(f"failed to resolve {what}: cannot specify both mode and pattern/enforce")
    if pattern is not None:
        return Naming("pattern", _resolved(pattern, what, target), bool(enforce))
    if enforce is not None:
        raise AutonamingError(f"failed to resolve {what}: pattern must be specified when enforce is true")
    if mode is None:
        return None
    if mode not in ("default", "verbatim", "disabled"):
        raise AutonamingError(
            f"failed to resolve {what}: invalid naming mode: {mode}; it must be default, verbatim or disabled"
        )
    return Naming(mode)


def _resolved(pattern: str, what: str, target: UpdateTarget) -> str:
    """The pattern with what is the same for the whole stack filled in."""
    for name, value in (
        ("organization", target.organization),
        ("project", target.project),
        ("stack", target.stack),
    ):
        pattern = pattern.replace(f"${{{name}}}", value)
    return _CONFIG.sub(lambda match: _config_value(match[1], what, target), pattern)


def _config_value(key: str, what: str, target: UpdateTarget) -> str:
    missing = AutonamingError(f"failed to resolve {what}: no value found for key {key!r}")
    whole = target.config.get(f"{target.project}:{key}")
    if whole is not None:
        return whole
    try:
        name, *path = parse_path(key)
    except ValueError as err:
        raise AutonamingError(f"failed to resolve {what}: {err}") from err
    try:
        value: Any = json.loads(target.config[f"{target.project}:{name}"])
        for part in path:
            value = value[part]
    except (KeyError, IndexError, TypeError, ValueError) as err:
        raise missing from err
    return value if isinstance(value, str) else json.dumps(value)
