"""`digitalocean:index/reservedIp:ReservedIp`: a public address of a region, kept while Droplets come and go."""

from __future__ import annotations

from engine.deploy.property import PropertyMap
from engine.deploy.providers.bridge.schema import Kind, Property, Schema, ipv4, output, stored_inputs, text
from engine.deploy.providers.digitalocean.adopting import read_created
from engine.deploy.providers.digitalocean.api import ApiError, Unanswered
from engine.deploy.providers.digitalocean.reserved_ip_actions import assign, get_reserved_ip, unassign
from engine.deploy.providers.digitalocean.resource_type import Cloud, HalfDone, OrdinaryType, TypeFailure, Values


class ReservedIp(OrdinaryType):
    """A reserved address; its id is the address, and it has no name by which a lost one could be found."""

    token = "digitalocean:index/reservedIp:ReservedIp"
    noun = "reserved IP"
    create_seconds = 600.0
    delete_seconds = 600.0
    schema = Schema(
        properties={
            "region": text(required=True, replace=True, stored=str.lower),
            "ipAddress": text(computed=True, validate=ipv4),
            "dropletId": Property(Kind.NUMBER),
            "reservedIpUrn": output(Kind.STRING),
        },
        renamed={"reservedIpUrn": "urn"},
    )

    async def create(self, cloud: Cloud, inputs: PropertyMap) -> tuple[str, Values]:
        try:
            answer = await cloud.post("/v2/reserved_ips", {"region": inputs["region"].lower()})
        except Unanswered as err:
            raise TypeFailure(f"Error creating reserved IP: {err}; {await self._free(cloud, inputs)}") from err
        ip = str(answer["reserved_ip"]["ip"])
        known = stored_inputs(self.schema, inputs)
        try:
            if inputs.get("dropletId"):
                await assign(cloud, ip, inputs["dropletId"])
        except (ApiError, TypeFailure) as err:
            values = {**known, "ipAddress": ip, "reservedIpUrn": _urn(ip), "dropletId": None}
            raise HalfDone(f"Error assigning reserved IP ({ip}) to the droplet: {err}", id=ip, values=values) from err
        return ip, await read_created(cloud, self, ip, known)

    async def read(self, cloud: Cloud, id: str, known: PropertyMap) -> Values | None:
        reserved = await get_reserved_ip(cloud, id)
        if reserved is None:
            return None
        droplet = reserved.get("droplet")
        # Only an address that the program itself gave to a Droplet says so; else the assignment is another resource's.
        names_holder = droplet is not None and (not known or known.get("dropletId"))
        return {
            "region": (droplet["region"] if names_holder and droplet else reserved["region"])["slug"],
            "ipAddress": reserved["ip"],
            "dropletId": droplet["id"] if names_holder and droplet else known.get("dropletId"),
            "reservedIpUrn": _urn(reserved["ip"]),
        }

    async def update(
        self, cloud: Cloud, id: str, old: PropertyMap, new: PropertyMap, changed: frozenset[str]
    ) -> Values:
        if "dropletId" in changed and new.get("dropletId"):
            await assign(cloud, id, new["dropletId"])
        elif "dropletId" in changed:
            await unassign(cloud, id)
        values = await self.read(cloud, id, new)
        if values is None:
            raise TypeFailure(f"Error updating reserved IP: {id} is gone; refresh the stack")
        return values

    async def delete(self, cloud: Cloud, id: str, outputs: PropertyMap) -> None:
        if outputs.get("dropletId") and await get_reserved_ip(cloud, id) is not None:
            await unassign(cloud, id)
        await cloud.delete(f"/v2/reserved_ips/{id}")

    async def lookup(self, cloud: Cloud, inputs: PropertyMap) -> str | None:
        raise TypeFailure(
            f"a reserved IP has no name to find it by: {await self._free(cloud, inputs)}, then refresh with "
            "clear-pending-creates"
        )

    async def _free(self, cloud: Cloud, inputs: PropertyMap) -> str:
        """What to do about an address that may or may not have been reserved."""
        region = inputs["region"].lower()
        reserved = await cloud.pages("/v2/reserved_ips", "reserved_ips")
        free = [str(r["ip"]) for r in reserved if r.get("droplet") is None and r["region"]["slug"] == region]
        if not free:
            return f"{region} has no unassigned reserved IP: nothing was made, try again"
        return f"{region} has unassigned reserved IPs ({', '.join(free)}): import or release the one that is not in use"


def _urn(ip: str) -> str:
    return f"do:reservedip:{ip}"
