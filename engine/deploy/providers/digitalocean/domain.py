"""`digitalocean:index/domain:Domain`: a DNS zone; its id is its name, which only one account can have."""

from __future__ import annotations

from engine.deploy.property import PropertyMap
from engine.deploy.providers.bridge.schema import Kind, Schema, output, text
from engine.deploy.providers.digitalocean.adopting import post_once, read_created
from engine.deploy.providers.digitalocean.resource_type import Cloud, OrdinaryType, TypeFailure, Values


class Domain(OrdinaryType):
    """A domain; `ipAddress` only makes its first record and is told by nothing later."""

    token = "digitalocean:index/domain:Domain"
    noun = "Domain"
    create_seconds = 120.0
    delete_seconds = 120.0
    schema = Schema(
        properties={
            "name": text(required=True, replace=True),
            "ipAddress": text(replace=True),
            "domainUrn": output(Kind.STRING),
            "ttl": output(Kind.NUMBER),
        },
        renamed={"domainUrn": "urn"},
    )

    async def create(self, cloud: Cloud, inputs: PropertyMap) -> tuple[str, Values]:
        body = {"name": inputs["name"]}
        if inputs.get("ipAddress"):
            body["ip_address"] = inputs["ipAddress"]
        answer = await post_once(cloud, "/v2/domains", body, lambda: self.lookup(cloud, inputs))
        id = answer if isinstance(answer, str) else str(answer["domain"]["name"])
        return id, await read_created(cloud, self, id, {"ipAddress": inputs.get("ipAddress")})

    async def read(self, cloud: Cloud, id: str, known: PropertyMap) -> Values | None:
        answer = await cloud.get(f"/v2/domains/{id}")
        if answer is None:
            return None
        name = answer["domain"]["name"]
        return {
            "name": name,
            "ipAddress": known.get("ipAddress"),
            "domainUrn": f"do:domain:{name}",
            "ttl": answer["domain"].get("ttl") or 0,
        }

    async def update(
        self, cloud: Cloud, id: str, old: PropertyMap, new: PropertyMap, changed: frozenset[str]
    ) -> Values:
        raise TypeFailure(f"a domain cannot be changed in place ({', '.join(sorted(changed))})")

    async def delete(self, cloud: Cloud, id: str, outputs: PropertyMap) -> None:
        await cloud.delete(f"/v2/domains/{id}")

    async def lookup(self, cloud: Cloud, inputs: PropertyMap) -> str | None:
        return None if await cloud.get(f"/v2/domains/{inputs['name']}") is None else str(inputs["name"])
