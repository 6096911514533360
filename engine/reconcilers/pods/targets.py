"""What is left of a pod where it ran: the cloud by its tags, Docker hosts by their labels. Decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import docker
import requests.exceptions
from docker.errors import APIError, DockerException, NotFound

from engine.deploy.providers.docker.hosts import DockerHost, HostUnreachable
from engine.model.errors import CloudError
from engine.model.pod import Place, Target
from engine.model.stack import OWNER_TAG_PREFIX
from engine.reconcilers.inventory import Inventory, Resource

CONTAINER, VOLUME = "container", "docker_volume"
OWNER_LABEL = "stackyard.owner"

T = TypeVar("T")


@dataclass(frozen=True)
class DockerThing:
    """A container or a volume of a Docker host."""

    kind: str
    id: str
    name: str
    tags: tuple[str, ...] = ()


class PodTargets:
    """`Targets` of this installation.

    Args:
        hosts: connections by the name of the Docker host.
    """

    def __init__(self, inventory: Inventory, installation_tag: str, hosts: Mapping[str, DockerHost]) -> None:
        self._inventory = inventory
        self._tag = installation_tag
        self._hosts = hosts

    async def owned(self, stack: str, place: Place | None) -> Sequence[Resource]:
        """See `Targets.owned`."""
        if place is not None and place.target is Target.DOCKER:
            return await self._ask(place.host, lambda client: _things(client, stack))
        tag = f"{OWNER_TAG_PREFIX}:{stack}"
        return [r for r in await self._inventory.resources(self._tag) if tag in r.tags]

    async def delete(self, resource: Resource, place: Place | None) -> None:
        """See `Targets.delete`."""
        if place is not None and place.target is Target.DOCKER:
            await self._ask(place.host, lambda client: _remove(client, resource))
        else:
            await self._inventory.delete(resource)

    async def _ask(self, host: str, call: Callable[[docker.APIClient], T]) -> T:
        found = self._hosts.get(host)
        if found is None:
            raise CloudError(f"the Docker host {host!r} is not in STACKYARD_DOCKER_HOSTS any more", status=0)
        try:
            return await asyncio.to_thread(lambda: call(found.client()))
        except (HostUnreachable, DockerException, requests.exceptions.RequestException, OSError) as err:
            status = (err.status_code or 0) if isinstance(err, APIError) else 0
            raise CloudError(f"the Docker host {host!r}: {err}", status=status) from err


def _things(client: docker.APIClient, stack: str) -> list[DockerThing]:
    """Containers first: a volume in use cannot be removed."""
    filters: dict[str, Any] = {"label": f"{OWNER_LABEL}={stack}"}
    containers = client.containers(all=True, filters=filters)
    volumes = client.volumes(filters=filters)["Volumes"] or []
    return [
        *(DockerThing(CONTAINER, c["Id"], c["Names"][0].removeprefix("/") if c["Names"] else "") for c in containers),
        *(DockerThing(VOLUME, v["Name"], v["Name"]) for v in volumes),
    ]


def _remove(client: docker.APIClient, resource: Resource) -> None:
    with suppress(NotFound):
        if resource.kind == CONTAINER:
            client.remove_container(resource.id, force=True, v=True)
        else:
            client.remove_volume(resource.id)
