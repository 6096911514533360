"""Giving reserved addresses to Droplets and taking them away: for the address and for its assignment."""

from __future__ import annotations

from typing import Any

from engine.deploy.providers.digitalocean.actions import act, wait_until_idle
from engine.deploy.providers.digitalocean.resource_type import Cloud


async def get_reserved_ip(cloud: Cloud, ip: str) -> dict[str, Any] | None:
    """The address as the API describes it, None when it is not the account's."""
    answer = await cloud.get(f"/v2/reserved_ips/{ip}")
    return None if answer is None else dict(answer["reserved_ip"])


async def holder(cloud: Cloud, ip: str) -> int | None:
    """The id of the Droplet that has the address."""
    reserved = await get_reserved_ip(cloud, ip)
    return ((reserved or {}).get("droplet") or {}).get("id")


async def assign(cloud: Cloud, ip: str, droplet_id: int) -> None:
    """Give the address to a Droplet once no other action runs there."""

    async def is_assigned() -> bool:
        return await holder(cloud, ip) == droplet_id

    await wait_until_idle(cloud, droplet_id)
    path = f"/v2/reserved_ips/{ip}/actions"
    await act(cloud, path, {"droplet_id": droplet_id, "type": "assign"}, is_assigned, path + "/{id}")


async def unassign(cloud: Cloud, ip: str) -> None:
    """Take the address from whichever Droplet has it."""

    async def is_unassigned() -> bool:
        return await holder(cloud, ip) is None

    path = f"/v2/reserved_ips/{ip}/actions"
    await act(cloud, path, {"type": "unassign"}, is_unassigned, path + "/{id}")
