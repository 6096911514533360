"""What the reconcilers need of a cloud: to list what this installation owns there, and to delete one of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

from engine.model.clock import Clock

LISTING_SPACING_SECONDS = 1.0
"""A hundred deployments deleted at once ask "am I gone?" a hundred times: they share one listing a second."""


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

    async def machine_states(self, installation_tag: str) -> Mapping[str, str]:
        """The cloud's word for the state of every machine that carries the tag (`active`, `off`, …), by id.

        Raises:
            CloudError: the cloud did not answer.
        """
        ...

    async def delete(self, resource: Resource) -> None:
        """Delete one; no error when it is gone already."""
        ...


class SharedListings:
    """An `Inventory` whose simultaneous callers share a listing that began after the last of them asked."""

    def __init__(self, inner: Inventory, clock: Clock, *, spacing_seconds: float = LISTING_SPACING_SECONDS) -> None:
        self._inner = inner
        self._clock = clock
        self._spacing = spacing_seconds
        self._coming: dict[str, asyncio.Task[Sequence[Resource]]] = {}
        self._began_at = -spacing_seconds

    async def resources(self, installation_tag: str) -> Sequence[Resource]:
        """See `Inventory.resources`."""
        coming = self._coming.get(installation_tag)
        if coming is None:
            coming = self._coming[installation_tag] = asyncio.create_task(self._list(installation_tag))
        return await asyncio.shield(coming)

    async def machine_states(self, installation_tag: str) -> Mapping[str, str]:
        """See `Inventory.machine_states`."""
        return await self._inner.machine_states(installation_tag)

    async def delete(self, resource: Resource) -> None:
        """See `Inventory.delete`."""
        await self._inner.delete(resource)

    async def _list(self, installation_tag: str) -> Sequence[Resource]:
        try:
            early = self._began_at + self._spacing - self._clock.monotonic()
            if early > 0:
                await self._clock.sleep(early)
            self._began_at = self._clock.monotonic()
        finally:
            del self._coming[installation_tag]  # who asks from now on needs a later listing
        return await self._inner.resources(installation_tag)
