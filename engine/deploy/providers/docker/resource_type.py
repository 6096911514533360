"""The ResourceType protocol: one kind of Docker resource, behind the provider.

A type knows its property table and the calls that make, read, change and remove it. Secrets, previews, `__meta` and
errors with URNs are the provider's business: a type is given plain values and returns plain values by property name.
"""

from __future__ import annotations

from typing import Any, Protocol

from engine.deploy.property import PropertyMap
from engine.deploy.providers.bridge.schema import Kind, Property, Schema
from engine.deploy.providers.docker.daemon import Daemon

Values = dict[str, Any]
"""Outputs by property name, plain, as the daemon gives them (sets in any order)."""

TWENTY_MINUTES = {"create": 1200, "delete": 1200, "update": 1200}
"""The official provider's default for what may pull an image."""


def word(**options: Any) -> Property:
    """A string; empty text is as good as none."""
    return Property(Kind.STRING, **options)


def integer(**options: Any) -> Property:
    """A number."""
    return Property(Kind.NUMBER, **options)


def flag(**options: Any) -> Property:
    """A bool."""
    return Property(Kind.BOOL, **options)


def words(kind: Kind = Kind.SET, **options: Any) -> Property:
    """A set (or list) of strings."""
    return Property(kind, element=word(), **options)


def mapping(**options: Any) -> Property:
    """Strings by name."""
    return Property(Kind.MAP, element=word(), **options)


def blocks(fields: dict[str, Property], kind: Kind = Kind.SET, **options: Any) -> Property:
    """A set (or list) of objects."""
    return Property(kind, element=Property(Kind.OBJECT, fields=fields), **options)


def labels(**options: Any) -> Property:
    """Labels, which the official provider has as a set of pairs."""
    return blocks({"label": word(required=True), "value": word(required=True)}, **options)


def label_map(value: list[PropertyMap] | None) -> dict[str, str]:
    """Labels as Docker has them."""
    return {entry["label"]: entry["value"] for entry in value or ()}


def label_set(value: dict[str, str] | None) -> list[PropertyMap]:
    """Labels as state has them."""
    return [{"label": name, "value": text} for name, text in (value or {}).items()]


class ResourceType(Protocol):
    """One resource type. Attributes: `token`, its Pulumi type; `noun`, its name in messages ("container")."""

    token: str
    noun: str
    schema: Schema
    create_seconds: float
    update_seconds: float
    delete_seconds: float
    replaces_by_deleting: bool

    def check_extra(self, inputs: PropertyMap) -> list[tuple[str, str]]:
        """Rules across properties: (property, what is wrong). Values may be secret or unknown."""
        ...

    def suppressed(self, old_outputs: PropertyMap, new_inputs: PropertyMap) -> list[str]:
        """Properties that say the same in other words this time, so that they are no change."""
        ...

    async def imported(self, daemon: Daemon, id: str) -> tuple[str, PropertyMap]:
        """The id in state and what else is known of a thing that a user names by `id`."""
        ...

    async def create(self, daemon: Daemon, inputs: PropertyMap) -> tuple[str, Values]:
        """Make it and wait until usable; its id and values.

        Raises:
            HalfDone: it exists but did not become usable.
        """
        ...

    async def read(self, daemon: Daemon, id: str, known: PropertyMap) -> Values | None:
        """What is there now, None when gone. `known`: last outputs, for what the daemon does not tell."""
        ...

    async def update(
        self, daemon: Daemon, id: str, old: PropertyMap, new: PropertyMap, changed: frozenset[str]
    ) -> Values:
        """Change in place what `changed` names; `old` and `new` in their stored form."""
        ...

    async def delete(self, daemon: Daemon, id: str, outputs: PropertyMap) -> None:
        """Remove it; gone already is success."""
        ...

    async def lookup(self, daemon: Daemon, inputs: PropertyMap) -> str | None:
        """The id of what a create with these inputs made, if it did."""
        ...


class OrdinaryType:
    """What most types answer; a type overrides where it differs."""

    create_seconds = 1200.0
    update_seconds = 1200.0
    delete_seconds = 1200.0
    replaces_by_deleting = False

    def check_extra(self, inputs: PropertyMap) -> list[tuple[str, str]]:
        """No rules across properties."""
        return []

    def suppressed(self, old_outputs: PropertyMap, new_inputs: PropertyMap) -> list[str]:
        """Nothing."""
        return []

    async def imported(self, daemon: Daemon, id: str) -> tuple[str, PropertyMap]:
        """The id is the daemon's own."""
        return id, {}
