"""`digitalocean:index/volumeAttachment:VolumeAttachment`: a volume in a Droplet; one Droplet at a time."""

from __future__ import annotations

from engine.deploy.property import PropertyMap
from engine.deploy.providers.bridge.schema import Kind, Property, Schema, at_least, text
from engine.deploy.providers.digitalocean.actions import act
from engine.deploy.providers.digitalocean.attachments import AttachmentIds
from engine.deploy.providers.digitalocean.resource_type import Cloud, OrdinaryType, TypeFailure, Values


class VolumeAttachment(OrdinaryType):
    """An attachment; the cloud knows it only as a volume's list of Droplets."""

    token = "digitalocean:index/volumeAttachment:VolumeAttachment"
    noun = "volume attachment"
    create_seconds = 300.0
    delete_seconds = 300.0
    schema = Schema(
        properties={
            "dropletId": Property(Kind.NUMBER, required=True, replace=True, validate=at_least(1)),
            "volumeId": text(required=True, replace=True),
        }
    )

    def __init__(self) -> None:
        self._ids = AttachmentIds()

    async def create(self, cloud: Cloud, inputs: PropertyMap) -> tuple[str, Values]:
        droplet, volume = inputs["dropletId"], inputs["volumeId"]
        holders = await _holders(cloud, volume)
        if holders is None:
            raise TypeFailure(f"Error retrieving volume: there is no volume {volume}")
        if holders[:1] != [droplet]:
            body = {"droplet_id": droplet, "type": "attach"}
            await act(cloud, f"/v2/volumes/{volume}/actions", body, lambda: _is_attached(cloud, inputs))
        return self._id(cloud, inputs), {"dropletId": droplet, "volumeId": volume}

    def _id(self, cloud: Cloud, inputs: PropertyMap) -> str:
        return self._ids.new(f"{inputs['dropletId']}-{inputs['volumeId']}-", cloud.api.clock)

    async def read(self, cloud: Cloud, id: str, known: PropertyMap) -> Values | None:
        if not await _is_attached(cloud, known):
            return None
        return {"dropletId": known["dropletId"], "volumeId": known["volumeId"]}

    async def update(
        self, cloud: Cloud, id: str, old: PropertyMap, new: PropertyMap, changed: frozenset[str]
    ) -> Values:
        raise TypeFailure(f"a volume attachment cannot be changed in place ({', '.join(sorted(changed))})")

    async def delete(self, cloud: Cloud, id: str, outputs: PropertyMap) -> None:
        async def is_detached() -> bool:
            return not await _is_attached(cloud, outputs)

        body = {"droplet_id": outputs["dropletId"], "type": "detach"}
        await act(cloud, f"/v2/volumes/{outputs['volumeId']}/actions", body, is_detached)

    async def imported(self, cloud: Cloud, id: str) -> tuple[str, PropertyMap]:
        raise TypeFailure("a volume attachment cannot be imported: its id is not the cloud's")

    async def lookup(self, cloud: Cloud, inputs: PropertyMap) -> str | None:
        return self._id(cloud, inputs) if await _is_attached(cloud, inputs) else None


async def _holders(cloud: Cloud, volume: str) -> list[int] | None:
    answer = await cloud.get(f"/v2/volumes/{volume}")
    return None if answer is None else list(answer["volume"].get("droplet_ids") or [])


async def _is_attached(cloud: Cloud, known: PropertyMap) -> bool:
    return (await _holders(cloud, known["volumeId"]) or [])[:1] == [known["dropletId"]]
