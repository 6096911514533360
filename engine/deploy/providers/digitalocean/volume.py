"""`digitalocean:index/volume:Volume`: block storage of one region. It grows in place and never shrinks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.deploy.property import UNKNOWN, PropertyMap
from engine.deploy.providers.bridge.schema import (
    Kind,
    Property,
    Schema,
    at_least,
    one_of,
    output,
    stored_inputs,
    text,
)
from engine.deploy.providers.digitalocean.actions import act
from engine.deploy.providers.digitalocean.adopting import post_once, read_created
from engine.deploy.providers.digitalocean.api import ApiError
from engine.deploy.providers.digitalocean.owners import refuse_unowned
from engine.deploy.providers.digitalocean.resource_type import Cloud, HalfDone, OrdinaryType, TypeFailure, Values
from engine.deploy.providers.digitalocean.tag import retag, tag_set

DETACH_PATIENCE_SECONDS = 60.0
_FILESYSTEMS = one_of("ext4", "xfs")


class Volume(OrdinaryType):
    """A volume; its name is unique in its region."""

    token = "digitalocean:index/volume:Volume"
    noun = "volume"
    create_seconds = 300.0
    delete_seconds = 300.0
    schema = Schema(
        properties={
            "name": text(required=True, automatic_name=True, replace=True),
            "region": text(required=True, replace=True, stored=str.lower),
            "size": Property(Kind.NUMBER, required=True, validate=at_least(1)),
            "description": text(replace=True),
            "snapshotId": text(replace=True),
            "initialFilesystemType": text(replace=True, validate=_FILESYSTEMS),
            "initialFilesystemLabel": text(replace=True),
            "filesystemType": text(computed=True, validate=_FILESYSTEMS),
            "tags": tag_set(),
            "filesystemLabel": output(Kind.STRING),
            "dropletIds": Property(Kind.SET, is_input=False, computed=True, element=output(Kind.NUMBER)),
            "volumeUrn": output(Kind.STRING),
        },
        renamed={"volumeUrn": "urn"},
    )

    def check_extra(self, inputs: PropertyMap) -> list[tuple[str, str]]:
        if inputs.get("filesystemType") is not None and inputs.get("initialFilesystemType") is not None:
            return [("filesystemType", "filesystemType conflicts with initialFilesystemType: give only the latter")]
        return []

    def refusal(self, old_outputs: PropertyMap, new_inputs: PropertyMap) -> str:
        old, new = old_outputs.get("size"), new_inputs.get("size")
        shrinks = old is not None and new not in (None, UNKNOWN) and new < old
        return "volumes `size` can only be expanded and not shrunk" if shrinks else ""

    async def create(self, cloud: Cloud, inputs: PropertyMap) -> tuple[str, Values]:
        answer = await post_once(cloud, "/v2/volumes", _body(inputs), lambda: self._find_created(cloud, inputs))
        id = answer if isinstance(answer, str) else str(answer["volume"]["id"])
        return id, await read_created(cloud, self, id, stored_inputs(self.schema, inputs))

    async def read(self, cloud: Cloud, id: str, known: PropertyMap) -> Values | None:
        answer = await cloud.get(f"/v2/volumes/{id}")
        return None if answer is None else _values(answer["volume"], known)

    async def update(
        self, cloud: Cloud, id: str, old: PropertyMap, new: PropertyMap, changed: frozenset[str]
    ) -> Values:
        try:
            if "size" in changed:
                await self._resize(cloud, id, new)
            if "tags" in changed:
                await retag(cloud, "volume", id, old, new)
            values = await self.read(cloud, id, new)
        except (ApiError, TypeFailure) as err:
            raise HalfDone(f"Error updating volume ({id}): {err}", id=id) from err
        if values is None:
            raise TypeFailure(f"Error updating volume: {id} is gone; refresh the stack")
        return values

    async def _resize(self, cloud: Cloud, id: str, new: PropertyMap) -> None:
        async def is_resized() -> bool:
            answer = await cloud.get(f"/v2/volumes/{id}")
            return answer is not None and answer["volume"]["size_gigabytes"] >= new["size"]

        body = {"region": new["region"], "size_gigabytes": new["size"], "type": "resize"}
        await act(cloud, f"/v2/volumes/{id}/actions", body, is_resized)

    async def delete(self, cloud: Cloud, id: str, outputs: PropertyMap) -> None:
        waiter = cloud.waiter(cloud.api.clock.monotonic() + DETACH_PATIENCE_SECONDS)
        while True:
            try:
                await cloud.delete(f"/v2/volumes/{id}")
                return
            except ApiError as err:
                # The Droplet that held it may be gone a moment before the volume knows.
                is_attached = err.status in (409, 422) and "attached" in err.message.lower()
                if not is_attached or not await waiter.again():
                    raise

    async def lookup(self, cloud: Cloud, inputs: PropertyMap) -> str | None:
        region = inputs["region"].lower()
        wanted = set(inputs.get("tags") or [])
        for volume in await cloud.pages("/v2/volumes", "volumes", name=inputs["name"], region=region):
            is_it = volume["name"] == inputs["name"] and volume["region"]["slug"] == region
            if is_it and wanted <= set(volume.get("tags") or []):
                return str(volume["id"])
        return None

    async def _find_created(self, cloud: Cloud, inputs: PropertyMap) -> str | None:
        return refuse_unowned(self.noun, inputs, await self.lookup(cloud, inputs))


def _body(inputs: PropertyMap) -> dict[str, Any]:
    """The request of a creation; the official provider's client sends every field."""
    return {
        "region": inputs["region"].lower(),
        "name": inputs["name"],
        "description": inputs.get("description") or "",
        "size_gigabytes": inputs["size"],
        "snapshot_id": inputs.get("snapshotId") or "",
        "filesystem_type": inputs.get("initialFilesystemType") or inputs.get("filesystemType") or "",
        "filesystem_label": inputs.get("initialFilesystemLabel") or "",
        "tags": list(inputs.get("tags") or []),
    }


def _values(volume: Mapping[str, Any], known: PropertyMap) -> Values:
    """Outputs; what was only asked for at the beginning stays as it is known."""
    return {
        "name": volume["name"],
        "region": volume["region"]["slug"],
        "size": volume["size_gigabytes"],
        "description": volume.get("description") or known.get("description"),
        "snapshotId": known.get("snapshotId"),
        "initialFilesystemType": known.get("initialFilesystemType"),
        "initialFilesystemLabel": known.get("initialFilesystemLabel"),
        "filesystemType": volume.get("filesystem_type") or known.get("filesystemType"),
        "filesystemLabel": volume.get("filesystem_label") or known.get("filesystemLabel"),
        "tags": [tag for tag in volume.get("tags") or [] if tag],
        "dropletIds": list(volume.get("droplet_ids") or []),
        "volumeUrn": f"do:volume:{volume['id']}",
    }
