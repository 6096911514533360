"""What is left of a handler deployment: containers and networks of Docker hosts, machines of the cloud."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import requests.exceptions
from docker.errors import APIError, DockerException, NotFound

from engine.deploy.providers.docker.hosts import DockerHost, HostUnreachable
from engine.model.errors import CloudError
from engine.model.stack import OWNER_TAG_PREFIX
from engine.reconcilers.inventory import Inventory, Resource

OWNER_LABEL = "stackyard.owner"
CONTAINER, NETWORK = "container", "network"


@dataclass(frozen=True)
class HostThing:
    """A container or a network of a Docker host."""

    kind: str
    id: str
    name: str
    host: str
    tags: tuple[str, ...] = ()


class HandlerTargets:
    """Everything a handler deployment can leave behind.

    Args:
        hosts: connections by the name of the Docker host.
        has_cloud: whether this installation has a cloud at all: without its token nobody can be asked.
    """

    def __init__(
        self, inventory: Inventory, installation_tag: str, hosts: Mapping[str, DockerHost], *, has_cloud: bool
    ) -> None:
        self._inventory = inventory
        self._has_cloud = has_cloud
        self._tag = installation_tag
        self._hosts = hosts

    async def owned(self, stack: str, hosts: Sequence[str]) -> list[Resource]:
        """What carries the stack's name on these hosts, and in the cloud.

        Raises:
            CloudError: somebody did not answer; nothing is known then, least of all that things are gone.
        """
        left: list[Resource] = []
        for name in hosts:
            left += await asyncio.to_thread(self._on_host, name, stack)
        if self._has_cloud:
            tag = f"{OWNER_TAG_PREFIX}:{stack}"
            left += [r for r in await self._inventory.resources(self._tag) if tag in r.tags]
        return left

    async def delete(self, resource: Resource) -> None:
        """Delete one; no error when it is gone already.

        Raises:
            CloudError: it could not be deleted.
        """
        if isinstance(resource, HostThing):
            await asyncio.to_thread(self._remove, resource)
        else:
            await self._inventory.delete(resource)

    def _on_host(self, name: str, stack: str) -> list[HostThing]:
        host = self._hosts.get(name)
        if host is None:
            return []  # the operator took it away: nothing on it can be reached, or is anybody's business here
        filters = {"label": f"{OWNER_LABEL}={stack}"}
        try:
            client = host.client()
            containers = client.containers(all=True, filters=filters)
            networks = client.networks(filters=filters)
        except (HostUnreachable, DockerException, requests.exceptions.RequestException, OSError) as err:
            raise _in_our_words(name, err) from err
        return [
            *(HostThing(CONTAINER, c["Id"], (c["Names"] or ["/"])[0].removeprefix("/"), name) for c in containers),
            *(HostThing(NETWORK, n["Id"], n["Name"], name) for n in networks),
        ]

    def _remove(self, thing: HostThing) -> None:
        host = self._hosts.get(thing.host)
        if host is None:
            return
        try:
            client = host.client()
            with suppress(NotFound):
                if thing.kind == CONTAINER:
                    client.remove_container(thing.id, force=True, v=True)
                else:
                    client.remove_network(thing.id)
        except (HostUnreachable, DockerException, requests.exceptions.RequestException, OSError) as err:
            raise _in_our_words(thing.host, err) from err


def _in_our_words(host: str, err: Exception) -> CloudError:
    status = (err.status_code or 0) if isinstance(err, APIError) else 0
    return CloudError(f"the Docker host {host!r}: {err}", status=status)
