"""What the reconcilers need of a cloud: to list what this installation owns there, and to delete one of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Resource(Protocol):
    """One thing a cloud says exists."""

    @property
    def kind(self) -> str:
        """`droplet`, `firewall`, …"""
        ...

    @property
    def id(self) -> str: ...

    @property
    def name(self) -> str: ...

    @property
    def tags(self) -> Sequence[str]: ...


class Inventory(Protocol):
    """A cloud, listed by tag: a few calls however many deployments there are."""

    async def resources(self, installation_tag: str) -> Sequence[Resource]:
        """Everything that carries the tag.

        Raises:
            CloudError: the cloud did not answer; nothing is known then, least of all that things are gone.
        """
        ...

    async def delete(self, resource: Resource) -> None:
        """Delete one; no error when it is gone already."""
        ...
