"""`digitalocean:index/volumeSnapshot:VolumeSnapshot`: a copy of a volume, from which volumes can be made."""

from __future__ import annotations

from engine.deploy.property import PropertyMap
from engine.deploy.providers.bridge.schema import Kind, Property, Schema, output, text
from engine.deploy.providers.digitalocean.adopting import post_once, read_created
from engine.deploy.providers.digitalocean.api import ApiError
from engine.deploy.providers.digitalocean.owners import refuse_unowned
from engine.deploy.providers.digitalocean.resource_type import Cloud, HalfDone, OrdinaryType, TypeFailure, Values
from engine.deploy.providers.digitalocean.snapshots import snapshot_values
from engine.deploy.providers.digitalocean.tag import retag, tag_set


class VolumeSnapshot(OrdinaryType):
    """A snapshot of a volume; only its tags can change."""

    token = "digitalocean:index/volumeSnapshot:VolumeSnapshot"
    noun = "volume snapshot"
    create_seconds = 600.0
    delete_seconds = 300.0
    schema = Schema(
        properties={
            "name": text(required=True, automatic_name=True, replace=True),
            "volumeId": text(required=True, replace=True),
            "tags": tag_set(),
            "createdAt": output(Kind.STRING),
            "minDiskSize": output(Kind.NUMBER),
            "regions": Property(Kind.SET, is_input=False, computed=True, element=output(Kind.STRING)),
            "size": output(Kind.NUMBER),
        }
    )

    async def create(self, cloud: Cloud, inputs: PropertyMap) -> tuple[str, Values]:
        body = {"name": inputs["name"], "tags": list(inputs.get("tags") or [])}
        path = f"/v2/volumes/{inputs['volumeId']}/snapshots"
        answer = await post_once(cloud, path, body, lambda: self._find_created(cloud, inputs))
        id = answer if isinstance(answer, str) else str(answer["snapshot"]["id"])
        return id, await read_created(cloud, self, id)

    async def read(self, cloud: Cloud, id: str, known: PropertyMap) -> Values | None:
        answer = await cloud.get(f"/v2/snapshots/{id}")
        if answer is None:
            return None
        snapshot = answer["snapshot"]
        return {
            **snapshot_values(snapshot),
            "volumeId": str(snapshot["resource_id"]),
            "tags": [tag for tag in snapshot.get("tags") or [] if tag],
        }

    async def update(
        self, cloud: Cloud, id: str, old: PropertyMap, new: PropertyMap, changed: frozenset[str]
    ) -> Values:
        try:
            await retag(cloud, "volume_snapshot", id, old, new)
            values = await self.read(cloud, id, new)
        except ApiError as err:
            raise HalfDone(f"Error updating tags: {err}", id=id) from err
        if values is None:
            raise TypeFailure(f"Error updating tags: volume snapshot {id} is gone; refresh the stack")
        return values

    async def delete(self, cloud: Cloud, id: str, outputs: PropertyMap) -> None:
        await cloud.delete(f"/v2/snapshots/{id}")

    async def lookup(self, cloud: Cloud, inputs: PropertyMap) -> str | None:
        try:
            snapshots = await cloud.pages(f"/v2/volumes/{inputs['volumeId']}/snapshots", "snapshots")
        except ApiError as err:
            if err.status == 404:
                return None
            raise
        wanted = set(inputs.get("tags") or [])
        found = [str(s["id"]) for s in snapshots if s["name"] == inputs["name"] and wanted <= set(s.get("tags") or [])]
        if len(found) > 1:
            raise TypeFailure(
                f"several snapshots ({', '.join(found)}) are named {inputs['name']!r}: delete all but one"
            )
        return found[0] if found else None

    async def _find_created(self, cloud: Cloud, inputs: PropertyMap) -> str | None:
        return refuse_unowned(self.noun, inputs, await self.lookup(cloud, inputs))
