"""`digitalocean:index/reservedIpAssignment:ReservedIpAssignment`: a reserved address on a Droplet."""

from __future__ import annotations

from engine.deploy.property import PropertyMap
from engine.deploy.providers.bridge.schema import Kind, Property, Schema, at_least, ipv4, text
from engine.deploy.providers.digitalocean.attachments import AttachmentIds
from engine.deploy.providers.digitalocean.reserved_ip_actions import assign, holder, unassign
from engine.deploy.providers.digitalocean.resource_type import Cloud, OrdinaryType, TypeFailure, Values


class ReservedIpAssignment(OrdinaryType):
    """An assignment; imported as `ip_address,droplet_id`."""

    token = "digitalocean:index/reservedIpAssignment:ReservedIpAssignment"
    noun = "reserved IP assignment"
    create_seconds = 600.0
    delete_seconds = 600.0
    schema = Schema(
        properties={
            "dropletId": Property(Kind.NUMBER, required=True, replace=True, validate=at_least(1)),
            "ipAddress": text(required=True, replace=True, validate=ipv4),
        }
    )

    def __init__(self) -> None:
        self._ids = AttachmentIds()

    async def create(self, cloud: Cloud, inputs: PropertyMap) -> tuple[str, Values]:
        await assign(cloud, inputs["ipAddress"], inputs["dropletId"])
        id = self._id(cloud, inputs)
        values = await self.read(cloud, id, inputs)
        if values is None:
            raise TypeFailure(f"reserved IP {inputs['ipAddress']} was assigned and is not on droplet {id}")
        return id, values

    def _id(self, cloud: Cloud, known: PropertyMap) -> str:
        return self._ids.new(f"{known['dropletId']}-{known['ipAddress']}-", cloud.api.clock)

    async def read(self, cloud: Cloud, id: str, known: PropertyMap) -> Values | None:
        if await holder(cloud, known["ipAddress"]) != known["dropletId"]:
            return None
        return {"dropletId": known["dropletId"], "ipAddress": known["ipAddress"]}

    async def update(
        self, cloud: Cloud, id: str, old: PropertyMap, new: PropertyMap, changed: frozenset[str]
    ) -> Values:
        raise TypeFailure(f"a reserved IP assignment cannot be changed in place ({', '.join(sorted(changed))})")

    async def delete(self, cloud: Cloud, id: str, outputs: PropertyMap) -> None:
        if await holder(cloud, outputs["ipAddress"]) == outputs["dropletId"]:
            await unassign(cloud, outputs["ipAddress"])

    async def imported(self, cloud: Cloud, id: str) -> tuple[str, PropertyMap]:
        ip, _, droplet = id.partition(",")
        if not droplet.isdigit():
            raise TypeFailure(f"{id!r}: import an assignment by `ip_address,droplet_id`")
        known = {"ipAddress": ip, "dropletId": int(droplet)}
        return self._id(cloud, known), known

    async def lookup(self, cloud: Cloud, inputs: PropertyMap) -> str | None:
        return self._id(cloud, inputs) if await holder(cloud, inputs["ipAddress"]) == inputs["dropletId"] else None
