"""DigitalOcean as the reconcilers' `Inventory`: its listing, with its errors in our words. Decides nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from engine.deploy.providers.digitalocean.api import ApiError
from engine.deploy.providers.digitalocean.inventory import DigitalOceanInventory, OwnedResource
from engine.model.errors import CloudError
from engine.reconcilers.inventory import Resource


class DigitalOceanCloud:
    """`Inventory` over one DigitalOcean account."""

    def __init__(self, inventory: DigitalOceanInventory) -> None:
        self._inventory = inventory

    async def resources(self, installation_tag: str) -> Sequence[OwnedResource]:
        """See `Inventory.resources`."""
        with _in_our_words():
            return await self._inventory.resources(installation_tag)

    async def machine_states(self, installation_tag: str) -> Mapping[str, str]:
        """See `Inventory.machine_states`."""
        with _in_our_words():
            return await self._inventory.machine_states(installation_tag)

    async def delete(self, resource: Resource) -> None:
        """See `Inventory.delete`."""
        with _in_our_words():
            await self._inventory.delete(OwnedResource(resource.kind, resource.id, resource.name, tuple(resource.tags)))


@contextmanager
def _in_our_words() -> Iterator[None]:
    try:
        yield
    except ApiError as err:
        raise CloudError(str(err), status=err.status, request=str(err).partition(": ")[0]) from err
