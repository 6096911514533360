"""What an installation owns in a DigitalOcean account: whole listings, never one call per stack.

For the sweeper, which compares it with what it knows; decides nothing itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from engine.deploy.providers.digitalocean.api import DigitalOceanApi

OWNER_PREFIX = "stackyard:"
"""Tags of deployments start like this; names of firewalls do not, these are owned through the tag they apply to."""

DROPLET, VOLUME, FIREWALL, TAG, SSH_KEY = "droplet", "volume", "firewall", "tag", "ssh_key"
_PATHS = {
    DROPLET: "/v2/droplets/",
    VOLUME: "/v2/volumes/",
    FIREWALL: "/v2/firewalls/",
    TAG: "/v2/tags/",
    SSH_KEY: "/v2/account/keys/",
}


@dataclass(frozen=True)
class OwnedResource:
    """One thing in the cloud.

    Attributes:
        kind: droplet | volume | firewall | tag | ssh_key.
        tags: its own tags; of a tag its name, so that an owner is found the same way for all kinds.
        created_at: None where the API does not tell (tags, keys).
        hourly_usd: what it costs while it exists.
    """

    kind: str
    id: str
    name: str
    tags: tuple[str, ...] = ()
    created_at: datetime | None = None
    hourly_usd: Decimal = Decimal(0)


class DigitalOceanInventory:
    """The cloud resources that carry our tags.

    Droplets and volumes carry the installation's tag. Firewalls, tags and keys cannot: they are listed if they name a
    deployment (`stackyard:…`). Reserved addresses have neither tag nor name: only the stack that made one knows it.
    Where two installations share an account, the caller may touch only those whose deployment it knows.
    """

    def __init__(self, api: DigitalOceanApi) -> None:
        self._api = api

    async def resources(self, installation_tag: str) -> list[OwnedResource]:
        """Everything that costs money or blocks a name, Droplets first."""
        droplets = [_droplet(d) for d in await self._api.droplets_by_tag(installation_tag)]
        volumes = [_volume(v) for v in await self._api.listing("/v2/volumes", "volumes")]
        firewalls = [_firewall(f) for f in await self._api.listing("/v2/firewalls", "firewalls")]
        tags = [
            OwnedResource(TAG, t["name"], t["name"], (t["name"],)) for t in await self._api.listing("/v2/tags", "tags")
        ]
        keys = [
            OwnedResource(SSH_KEY, str(k["id"]), k["name"], (k["name"],))
            for k in await self._api.listing("/v2/account/keys", "ssh_keys")
        ]
        ours = [v for v in volumes if installation_tag in v.tags]
        return [*droplets, *ours] + [r for r in (*firewalls, *tags, *keys) if _is_owned(r, installation_tag)]

    async def machine_states(self, installation_tag: str) -> dict[str, str]:
        """`new`, `active`, `off` or `archive` of every Droplet, by id."""
        droplets = await self._api.droplets_by_tag(installation_tag)
        return {str(droplet["id"]): str(droplet.get("status") or "") for droplet in droplets}

    async def delete(self, resource: OwnedResource) -> None:
        """Ask for its deletion; gone already is success. A Droplet takes a while: list again."""
        await self._api.delete(_PATHS[resource.kind] + quote(resource.id, safe=":"))


def _is_owned(resource: OwnedResource, installation_tag: str) -> bool:
    """The installation's own tag is no finding: to delete it would take it off every machine."""
    if resource.kind == TAG and resource.name == installation_tag:
        return False
    return any(tag == installation_tag or tag.startswith(OWNER_PREFIX) for tag in resource.tags)


def _droplet(droplet: Mapping[str, Any]) -> OwnedResource:
    price = (droplet.get("size") or {}).get("price_hourly") or 0
    return OwnedResource(
        DROPLET,
        str(droplet["id"]),
        droplet["name"],
        tuple(droplet.get("tags") or ()),
        _time(droplet.get("created_at")),
        Decimal(str(price)),
    )


def _volume(volume: Mapping[str, Any]) -> OwnedResource:
    tags: Sequence[str] = volume.get("tags") or ()
    return OwnedResource(VOLUME, volume["id"], volume["name"], tuple(tags), _time(volume.get("created_at")))


def _firewall(firewall: Mapping[str, Any]) -> OwnedResource:
    tags: Sequence[str] = firewall.get("tags") or ()
    return OwnedResource(
        FIREWALL, str(firewall["id"]), firewall["name"], tuple(tags), _time(firewall.get("created_at"))
    )


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
