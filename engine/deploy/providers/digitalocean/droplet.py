"""`digitalocean:index/droplet:Droplet`: a virtual machine.

Reads and requests as the official provider's `resource_droplet.go`; the property table and what one Droplet's answer
means are here, waiting and changing in `droplet_changes.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.deploy.property import PropertyMap, strip_secrets
from engine.deploy.provider import DiffKind
from engine.deploy.providers.bridge.schema import (
    Kind,
    Property,
    Schema,
    not_empty,
    one_of,
    output,
    stored_inputs,
    text,
    text_hash,
)
from engine.deploy.providers.digitalocean.adopting import post_once
from engine.deploy.providers.digitalocean.droplet_changes import (
    change,
    droplets_named,
    wait_for,
    wait_until_active,
    wait_until_gone,
    wait_while_locked,
)
from engine.deploy.providers.digitalocean.owners import OWNER_TAG_MARK, owner_tags, refuse_unowned
from engine.deploy.providers.digitalocean.resource_type import Cloud, OrdinaryType, TypeFailure, Values
from engine.deploy.providers.digitalocean.tag import tag_set

WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")


_BACKUP_POLICY = Property(
    Kind.SINGLE,
    fields={
        "hour": Property(Kind.NUMBER, validate=lambda hour: "" if 0 <= hour <= 20 else "must be between 0 and 20"),
        "plan": Property(Kind.STRING, validate=one_of("daily", "weekly")),
        "weekday": Property(Kind.STRING, validate=one_of(*WEEKDAYS)),
    },
)

_PROPERTIES: Mapping[str, Property] = {
    "image": text(required=True, replace=True),
    "name": text(required=True, automatic_name=True),
    "region": text(computed=True, replace=True, stored=str.lower),
    "size": text(required=True, stored=str.lower),
    "gracefulShutdown": Property(Kind.BOOL, default=False),
    "resizeDisk": Property(Kind.BOOL, default=True, default_in_inputs=True),
    "backups": Property(Kind.BOOL, default=False),
    "backupPolicy": _BACKUP_POLICY,
    "ipv6": Property(Kind.BOOL, default=False),
    "ipv6Address": text(computed=True),
    "privateNetworking": Property(Kind.BOOL, computed=True),
    "publicNetworking": Property(Kind.BOOL, computed=True, replace=True),
    "sshKeys": Property(Kind.SET, replace=True, element=Property(Kind.STRING, validate=not_empty)),
    "userData": text(replace=True, stored=text_hash),
    "volumeIds": Property(Kind.SET, computed=True, element=Property(Kind.STRING)),
    "monitoring": Property(Kind.BOOL, default=False, replace=True),
    "dropletAgent": Property(Kind.BOOL, replace=True),
    "tags": tag_set(),
    "vpcUuid": text(computed=True, replace=True),
    "createdAt": output(Kind.STRING),
    "disk": output(Kind.NUMBER),
    "dropletUrn": output(Kind.STRING),
    "ipv4Address": output(Kind.STRING),
    "ipv4AddressPrivate": output(Kind.STRING),
    "locked": output(Kind.BOOL),
    "memory": output(Kind.NUMBER),
    "priceHourly": output(Kind.NUMBER),
    "priceMonthly": output(Kind.NUMBER),
    "status": output(Kind.STRING),
    "vcpus": output(Kind.NUMBER),
}


class Droplet(OrdinaryType):
    """A Droplet; usable when its status is `active` and no action of DigitalOcean's holds it locked."""

    token = "digitalocean:index/droplet:Droplet"
    noun = "droplet"
    create_seconds = 3600.0
    delete_seconds = 600.0  # the official 60 s is too short for GPU machines; `__meta` still says 60 s
    schema = Schema(
        properties=_PROPERTIES,
        renamed={"dropletUrn": "urn"},
        timeouts_seconds={"create": 3600, "delete": 60, "update": 3600},
        version="1",
    )

    def check_extra(self, inputs: PropertyMap) -> list[tuple[str, str]]:
        if inputs.get("backupPolicy") is not None and strip_secrets(inputs.get("backups")) in (None, False):
            return [("backupPolicy", "backupPolicy can only be set when backups are enabled: set backups to true")]
        return []

    def also_replaces(self, old_outputs: PropertyMap, new_inputs: PropertyMap) -> list[str]:
        turned_off = bool(old_outputs.get("ipv6")) and not strip_secrets(new_inputs.get("ipv6"))
        return ["ipv6"] if turned_off else []

    def recomputed(self, old_outputs: PropertyMap, new_inputs: PropertyMap) -> Mapping[str, DiffKind]:
        turned_on = not old_outputs.get("ipv6") and strip_secrets(new_inputs.get("ipv6")) is True
        return {"ipv6Address": DiffKind.UPDATE} if turned_on else {}

    async def create(self, cloud: Cloud, inputs: PropertyMap) -> tuple[str, Values]:
        answer = await post_once(cloud, "/v2/droplets", create_body(inputs), lambda: _find_created(cloud, inputs))
        id = answer if isinstance(answer, str) else str(answer["droplet"]["id"])
        droplet = await wait_until_active(cloud, id, inputs["name"])
        return id, values_of(droplet, stored_inputs(self.schema, inputs))

    async def read(self, cloud: Cloud, id: str, known: PropertyMap) -> Values | None:
        answer = await cloud.get(f"/v2/droplets/{id}")
        if answer is None or answer["droplet"]["status"] == "archive":
            return None
        return values_of(answer["droplet"], known)

    async def update(
        self, cloud: Cloud, id: str, old: PropertyMap, new: PropertyMap, changed: frozenset[str]
    ) -> Values:
        droplet = await change(cloud, id, old, new, changed)
        return values_of(droplet, new)

    async def delete(self, cloud: Cloud, id: str, outputs: PropertyMap) -> None:
        if await wait_while_locked(cloud, id) is None:
            return
        if outputs.get("gracefulShutdown"):
            await cloud.post(f"/v2/droplets/{id}/actions", {"type": "shutdown"}, idempotent=True)
            await wait_for(cloud, id, lambda droplet: droplet["status"] == "off", "off")
        if await cloud.delete(f"/v2/droplets/{id}"):
            await wait_until_gone(cloud, id)

    async def lookup(self, cloud: Cloud, inputs: PropertyMap) -> str | None:
        if not owner_tags(inputs):
            raise TypeFailure(
                f"a Droplet named {inputs['name']!r} without a tag {OWNER_TAG_MARK}… cannot be told from others' "
                "machines: look for it in the DigitalOcean console, delete it or import it, then refresh with "
                "clear-pending-creates"
            )
        return await _find_owned(cloud, inputs)


async def _find_owned(cloud: Cloud, inputs: PropertyMap) -> str | None:
    """By exact name and all tags. The API filters by name or by tag, not both; by name the answer is short."""
    wanted = set(inputs.get("tags") or [])
    droplets = await droplets_named(cloud, inputs["name"])
    found = [
        str(d["id"])
        for d in droplets
        if d["name"] == inputs["name"] and d["status"] != "archive" and wanted <= set(d.get("tags") or [])
    ]
    if len(found) > 1:
        raise TypeFailure(
            f"several Droplets ({', '.join(found)}) are named {inputs['name']!r} with the same tags: delete all but one"
        )
    return found[0] if found else None


async def _find_created(cloud: Cloud, inputs: PropertyMap) -> str | None:
    return refuse_unowned("droplet", inputs, await _find_owned(cloud, inputs))


def create_body(inputs: PropertyMap) -> dict[str, Any]:
    """The request of a creation, as the official provider's client writes it."""
    body: dict[str, Any] = {
        "name": inputs["name"],
        "region": inputs.get("region") or "",
        "size": inputs["size"],
        "image": _number_if_digits(inputs["image"]),
        "ssh_keys": [_number_if_digits(key) for key in inputs.get("sshKeys") or []] or None,
        "backups": bool(inputs.get("backups")),
        "ipv6": bool(inputs.get("ipv6")),
        "private_networking": bool(inputs.get("privateNetworking")),
        "monitoring": bool(inputs.get("monitoring")),
        "tags": list(inputs.get("tags") or []),
    }
    optional = {
        "user_data": inputs.get("userData"),
        "volumes": inputs.get("volumeIds"),
        "vpc_uuid": inputs.get("vpcUuid"),
        "with_droplet_agent": inputs.get("dropletAgent"),
        "public_networking": inputs.get("publicNetworking"),
        "backup_policy": _backup_policy(inputs),
    }
    return body | {key: value for key, value in optional.items() if value not in (None, [])}


def _backup_policy(inputs: PropertyMap) -> dict[str, Any] | None:
    """The API's form of the backup policy."""
    policy = inputs.get("backupPolicy")
    if policy is None:
        return None
    return {key: policy[key] for key in ("plan", "weekday", "hour") if policy.get(key) is not None}


def _number_if_digits(value: str) -> int | str:
    return int(value) if value.isdigit() else value


def values_of(droplet: Mapping[str, Any], known: PropertyMap) -> Values:
    """Outputs from the API's description; `known` (inputs or last outputs) for what it does not tell."""
    networks = droplet.get("networks") or {}
    features = droplet.get("features") or []
    public = _address(networks.get("v4"), "public")
    values: Values = {
        "image": known.get("image") or _image_name(droplet),
        "name": droplet["name"],
        "region": droplet["region"]["slug"],
        "size": droplet.get("size_slug") or droplet["size"]["slug"],
        "gracefulShutdown": bool(known.get("gracefulShutdown")),
        "resizeDisk": known.get("resizeDisk", True) is not False,
        "backupPolicy": known.get("backupPolicy"),
        "sshKeys": known.get("sshKeys"),
        "userData": known.get("userData"),
        "dropletAgent": known.get("dropletAgent"),
        "publicNetworking": bool(public or _address(networks.get("v6"), "public")),
        "ipv4Address": public,
        "ipv4AddressPrivate": _address(networks.get("v4"), "private"),
        "ipv6Address": _address(networks.get("v6"), "public").lower(),
        "volumeIds": list(droplet.get("volume_ids") or []),
        "tags": [tag for tag in droplet.get("tags") or [] if tag],
        "vpcUuid": droplet.get("vpc_uuid") or "",
        "createdAt": droplet["created_at"],
        "dropletUrn": f"do:droplet:{droplet['id']}",
        "locked": bool(droplet.get("locked")),
        "status": droplet["status"],
        "disk": droplet["disk"],
        "memory": droplet["memory"],
        "vcpus": droplet["vcpus"],
        "priceHourly": droplet["size"]["price_hourly"],
        "priceMonthly": droplet["size"]["price_monthly"],
    }
    for name, feature in _FEATURES.items():
        values[name] = feature in features
    return values


_FEATURES = {
    "backups": "backups",
    "ipv6": "ipv6",
    "privateNetworking": "private_networking",
    "monitoring": "monitoring",
}


def _address(networks: list[dict[str, Any]] | None, type_: str) -> str:
    return next((str(n["ip_address"]) for n in networks or [] if n["type"] == type_), "")


def _image_name(droplet: Mapping[str, Any]) -> str:
    image = droplet.get("image") or {}
    return str(image.get("slug") or image.get("id") or "")
