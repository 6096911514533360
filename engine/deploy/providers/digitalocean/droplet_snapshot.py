"""`digitalocean:index/dropletSnapshot:DropletSnapshot`: an image of a Droplet's disk. Names may repeat."""

from __future__ import annotations

from typing import Any

from engine.deploy.property import PropertyMap
from engine.deploy.providers.bridge.schema import Kind, Property, Schema, output, text
from engine.deploy.providers.digitalocean.actions import wait_for_action
from engine.deploy.providers.digitalocean.adopting import post_once, read_created
from engine.deploy.providers.digitalocean.api import ApiError
from engine.deploy.providers.digitalocean.resource_type import Cloud, OrdinaryType, TypeFailure, Values
from engine.deploy.providers.digitalocean.snapshots import snapshot_values


class DropletSnapshot(OrdinaryType):
    """A snapshot; the action that makes it does not name it, so what is new afterwards is it."""

    token = "digitalocean:index/dropletSnapshot:DropletSnapshot"
    noun = "Droplet snapshot"
    create_seconds = 3600.0
    delete_seconds = 300.0
    schema = Schema(
        properties={
            "name": text(required=True, automatic_name=True, replace=True),
            "dropletId": text(required=True, replace=True),
            "createdAt": output(Kind.STRING),
            "minDiskSize": output(Kind.NUMBER),
            "regions": Property(Kind.SET, is_input=False, computed=True, element=output(Kind.STRING)),
            "size": output(Kind.NUMBER),
        }
    )

    async def create(self, cloud: Cloud, inputs: PropertyMap) -> tuple[str, Values]:
        before = {s["id"] for s in await _named(cloud, inputs)}

        async def made() -> str | None:
            new = [str(s["id"]) for s in await _named(cloud, inputs) if s["id"] not in before]
            return new[0] if new else None

        body = {"type": "snapshot", "name": inputs["name"]}
        answer = await post_once(cloud, f"/v2/droplets/{inputs['dropletId']}/actions", body, made)
        if not isinstance(answer, str):
            await wait_for_action(cloud, answer["action"])
        waiter = cloud.waiter()
        while (id := await made()) is None:
            if not await waiter.again():
                raise TypeFailure(f"Error retrieving Droplet Snapshot: {inputs['name']!r} is in no listing")
        return id, await read_created(cloud, self, id)

    async def read(self, cloud: Cloud, id: str, known: PropertyMap) -> Values | None:
        answer = await cloud.get(f"/v2/snapshots/{id}")
        if answer is None:
            return None
        return {**snapshot_values(answer["snapshot"]), "dropletId": str(answer["snapshot"]["resource_id"])}

    async def update(
        self, cloud: Cloud, id: str, old: PropertyMap, new: PropertyMap, changed: frozenset[str]
    ) -> Values:
        raise TypeFailure(f"a snapshot cannot be changed in place ({', '.join(sorted(changed))})")

    async def delete(self, cloud: Cloud, id: str, outputs: PropertyMap) -> None:
        await cloud.delete(f"/v2/snapshots/{id}")

    async def lookup(self, cloud: Cloud, inputs: PropertyMap) -> str | None:
        found = [str(s["id"]) for s in await _named(cloud, inputs)]
        if len(found) > 1:
            raise TypeFailure(
                f"several snapshots ({', '.join(found)}) of droplet {inputs['dropletId']} are named "
                f"{inputs['name']!r}: delete all but one"
            )
        return found[0] if found else None


async def _named(cloud: Cloud, inputs: PropertyMap) -> list[dict[str, Any]]:
    try:
        snapshots = await cloud.pages(f"/v2/droplets/{inputs['dropletId']}/snapshots", "snapshots")
    except ApiError as err:
        if err.status == 404:
            return []  # no such Droplet (any more); its snapshots outlive it but are not told by this address
        raise
    return [s for s in snapshots if s["name"] == inputs["name"]]
