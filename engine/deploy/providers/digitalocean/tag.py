"""`digitalocean:index/tag:Tag`: a name that other resources carry."""

from __future__ import annotations

import re
from urllib.parse import quote

from engine.deploy.property import PropertyMap
from engine.deploy.providers.bridge.schema import Kind, Property, Schema, output, text
from engine.deploy.providers.digitalocean.adopting import read_created
from engine.deploy.providers.digitalocean.resource_type import Cloud, OrdinaryType, TypeFailure, Values

_TAG_NAME = re.compile(r"[a-zA-Z0-9:\-_]{1,255}")


def tag_name_fault(value: str) -> str:
    """What is wrong with a tag's name, or ""."""
    if _TAG_NAME.fullmatch(value):
        return ""
    return "may contain letters, numbers, colons, dashes and underscores; there is a limit of 255 characters per tag"


def tag_set() -> Property:
    """The `tags` of other resource types."""
    return Property(Kind.SET, element=Property(Kind.STRING, validate=tag_name_fault))


async def retag(cloud: Cloud, resource_type: str, id: str, old: PropertyMap, new: PropertyMap) -> None:
    """Change the `tags` of a resource of another type (`droplet`, `volume` …) from its old to its new ones."""
    before, after = old.get("tags") or [], new.get("tags") or []
    body = {"resources": [{"resource_id": id, "resource_type": resource_type}]}
    for tag in (t for t in before if t not in after):
        await cloud.delete(f"/v2/tags/{quote(tag, safe=':')}/resources", body)
    for tag in (t for t in after if t not in before):
        await cloud.post("/v2/tags", {"name": tag}, idempotent=True)
        await cloud.post(f"/v2/tags/{quote(tag, safe=':')}/resources", body, idempotent=True)


class Tag(OrdinaryType):
    """A tag; its id is its name, and making one that exists gives that one."""

    token = "digitalocean:index/tag:Tag"
    noun = "tag"
    create_seconds = 120.0
    delete_seconds = 120.0
    schema = Schema(
        properties={
            "name": text(required=True, automatic_name=True, replace=True, validate=tag_name_fault),
            "totalResourceCount": output(Kind.NUMBER),
            "dropletsCount": output(Kind.NUMBER),
            "imagesCount": output(Kind.NUMBER),
            "volumesCount": output(Kind.NUMBER),
            "volumeSnapshotsCount": output(Kind.NUMBER),
            "databasesCount": output(Kind.NUMBER),
        }
    )

    async def create(self, cloud: Cloud, inputs: PropertyMap) -> tuple[str, Values]:
        answer = await cloud.post("/v2/tags", {"name": inputs["name"]}, idempotent=True)
        id = str(answer["tag"]["name"])
        return id, await read_created(cloud, self, id)

    async def read(self, cloud: Cloud, id: str, known: PropertyMap) -> Values | None:
        answer = await cloud.get(f"/v2/tags/{quote(id, safe=':')}")
        if answer is None:
            return None
        resources = answer["tag"].get("resources") or {}

        def count(kind: str) -> int:
            return int((resources.get(kind) or {}).get("count") or 0)

        return {
            "name": answer["tag"]["name"],
            "totalResourceCount": int(resources.get("count") or 0),
            "dropletsCount": count("droplets"),
            "imagesCount": count("images"),
            "volumesCount": count("volumes"),
            "volumeSnapshotsCount": count("volume_snapshots"),
            "databasesCount": count("databases"),
        }

    async def update(
        self, cloud: Cloud, id: str, old: PropertyMap, new: PropertyMap, changed: frozenset[str]
    ) -> Values:
        raise TypeFailure(f"a tag cannot be changed in place ({', '.join(sorted(changed))})")

    async def delete(self, cloud: Cloud, id: str, outputs: PropertyMap) -> None:
        await cloud.delete(f"/v2/tags/{quote(id, safe=':')}")

    async def lookup(self, cloud: Cloud, inputs: PropertyMap) -> str | None:
        answer = await cloud.get(f"/v2/tags/{quote(inputs['name'], safe=':')}")
        return None if answer is None else str(answer["tag"]["name"])
