"""Property values: what flows between programs, the engine, providers and checkpoints.

Plain values are `None`, `bool`, `float`/`int`, `str`, `list` and `dict[str, …]`. The marked ones are here. The wire
form (google.protobuf.Struct with signature keys) and the checkpoint form are in `wire.py` and `checkpoint.py`.
Source: pulumi `sdk/go/common/resource/properties.go`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

PropertyValue = Any
"""None | bool | int | float | str | list[PropertyValue] | dict[str, PropertyValue] | Secret | Unknown | …"""

PropertyMap = dict[str, PropertyValue]

SIGNATURE = "4dabf18193072939515e22adb298388d"
SECRET_SIGNATURE = "1b47061264138c4ac30d75fd1eb44270"
ASSET_SIGNATURE = "c44067f5952c0a294b673a41bacd8c17"
ARCHIVE_SIGNATURE = "0def7320c3a5731c473e5ecbe6d01bc7"
RESOURCE_SIGNATURE = "5cf8f73096256a8f31e491e813e4eb8e"
OUTPUT_SIGNATURE = "d0e6a833031e9bbcd3f4e8bde6ca49a4"
UNKNOWN_VALUE = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"


@dataclass(frozen=True)
class Secret:
    """A value that is encrypted wherever it is stored and hidden wherever it is shown. Never nested directly."""

    value: PropertyValue

    def __repr__(self) -> str:
        return "Secret([hidden])"


class Unknown:
    """A value that will be known only after the update; compare with `is UNKNOWN`."""

    def __repr__(self) -> str:
        return "UNKNOWN"


UNKNOWN = Unknown()


@dataclass(frozen=True)
class Output:
    """An output value on the wire (`accepts_output_values`): a value with its dependencies."""

    value: PropertyValue
    known: bool = True
    secret: bool = False
    dependencies: tuple[str, ...] = ()


@dataclass(frozen=True)
class Asset:
    """A file, text or remote asset in its serialised form (`hash`, `path`/`text`/`uri`)."""

    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Archive:
    """An archive in its serialised form (`hash`, `path`/`uri`/`assets`)."""

    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ResourceReference:
    """A reference to another resource by URN (and id for custom resources)."""

    urn: str
    id: PropertyValue | None = None
    package_version: str = ""


def transform(value: PropertyValue, leaf: Callable[[PropertyValue], PropertyValue]) -> PropertyValue:
    """Rebuild a value bottom-up: lists and maps are walked, everything else (also `Secret`) goes through `leaf`."""
    if isinstance(value, dict):
        return {k: transform(v, leaf) for k, v in value.items()}
    if isinstance(value, list):
        return [transform(v, leaf) for v in value]
    return leaf(value)


def walk(value: PropertyValue) -> Iterator[PropertyValue]:
    """The value and everything inside it, secrets and outputs opened."""
    yield value
    if isinstance(value, dict):
        for v in value.values():
            yield from walk(v)
    elif isinstance(value, list):
        for v in value:
            yield from walk(v)
    elif isinstance(value, Secret | Output):
        yield from walk(value.value)


def contains_unknown(value: PropertyValue) -> bool:
    """Whether anything inside is not known yet."""
    return any(v is UNKNOWN or (isinstance(v, Output) and not v.known) for v in walk(value))


def contains_secret(value: PropertyValue) -> bool:
    """Whether anything inside is secret."""
    return any(isinstance(v, Secret) or (isinstance(v, Output) and v.secret) for v in walk(value))


def strip_secrets(value: PropertyValue) -> PropertyValue:
    """The same value with secrets opened: what providers that do not accept secrets are given."""
    if isinstance(value, Secret):
        return strip_secrets(value.value)
    if isinstance(value, dict):
        return {k: strip_secrets(v) for k, v in value.items()}
    if isinstance(value, list):
        return [strip_secrets(v) for v in value]
    return value
