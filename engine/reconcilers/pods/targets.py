"""What is left of a pod where it ran: the cloud by its tags, Docker hosts by their labels. Decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

import docker
import requests.exceptions
from docker.errors import APIError, DockerException, NotFound

from engine.deploy.providers.docker.hosts import DockerHost, HostUnreachable
from engine.model.clock import Clock
from engine.model.errors import CloudError
from engine.model.pod import ContainerState, Place, Target
from engine.model.stack import OWNER_TAG_PREFIX
from engine.reconcilers.inventory import Inventory, Resource

CONTAINER, NETWORK, VOLUME = "container", "docker_network", "docker_volume"
OWNER_LABEL = "stackyard.owner"

LAST_LINES, LAST_CHARACTERS = 10, 600
"""Of the output of a container that does not stay up: enough to see why."""

T = TypeVar("T")


@dataclass(frozen=True)
class DockerThing:
    """A container, a network or a volume of a Docker host."""

    kind: str
    id: str
    name: str
    tags: tuple[str, ...] = ()


class PodTargets:
    """`Targets` of this installation.

    Args:
        clock: tells for how long containers run; hosts' clocks are taken to be right.
        hosts: connections by the name of the Docker host.
    """

    def __init__(
        self, inventory: Inventory, installation_tag: str, hosts: Mapping[str, DockerHost], clock: Clock
    ) -> None:
        self._inventory = inventory
        self._tag = installation_tag
        self._hosts = hosts
        self._clock = clock

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

    async def container(self, place: Place, id: str) -> ContainerState:
        """See `Targets.container`."""
        return await self._ask(place.host, lambda client: _state(client, id, self._clock.now()))

    async def _ask(self, host: str, call: Callable[[docker.APIClient], T]) -> T:
        found = self._hosts.get(host)
        if found is None:
            raise CloudError(f"the Docker host {host!r} is not in STACKYARD_DOCKER_HOSTS any more", status=0)
        try:
            return await asyncio.to_thread(lambda: call(found.client()))
        except (HostUnreachable, DockerException, requests.exceptions.RequestException, OSError) as err:
            status = (err.status_code or 0) if isinstance(err, APIError) else 0
            raise CloudError(f"the Docker host {host!r}: {err}", status=status) from err


def _state(client: docker.APIClient, id: str, now: datetime) -> ContainerState:
    try:
        told = client.inspect_container(id)
    except NotFound:
        return ContainerState(is_there=False)
    state, restarts = told["State"], int(told.get("RestartCount", 0))
    runs = (now - datetime.fromisoformat(state["StartedAt"])) / timedelta(seconds=1)
    is_steady = state["Status"] == "running" and not restarts
    lines = "" if is_steady else client.logs(id, tail=LAST_LINES).decode(errors="replace").replace("\0", "").strip()
    return ContainerState(True, state["Status"], int(state["ExitCode"]), restarts, runs, lines[-LAST_CHARACTERS:])


def _things(client: docker.APIClient, stack: str) -> list[DockerThing]:
    """Containers first: a network or volume in use cannot be removed."""
    filters: dict[str, Any] = {"label": f"{OWNER_LABEL}={stack}"}
    containers = client.containers(all=True, filters=filters)
    volumes = client.volumes(filters=filters)["Volumes"] or []
    return [
        *(DockerThing(CONTAINER, c["Id"], c["Names"][0].removeprefix("/") if c["Names"] else "") for c in containers),
        *(DockerThing(NETWORK, n["Id"], n["Name"]) for n in client.networks(filters=filters)),
        *(DockerThing(VOLUME, v["Name"], v["Name"]) for v in volumes),
    ]


def _remove(client: docker.APIClient, resource: Resource) -> None:
    with suppress(NotFound):
        if resource.kind == CONTAINER:
            client.remove_container(resource.id, force=True, v=True)
        elif resource.kind == NETWORK:
            client.remove_network(resource.id)
        else:
            client.remove_volume(resource.id)
