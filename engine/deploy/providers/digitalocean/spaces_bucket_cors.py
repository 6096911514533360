"""`digitalocean:index/spacesBucketCorsConfiguration:SpacesBucketCorsConfiguration`: which pages may use a bucket."""

from __future__ import annotations

from engine.deploy.property import PropertyMap
from engine.deploy.providers.bridge.schema import Kind, Property, Schema, at_most, one_of, text
from engine.deploy.providers.digitalocean.resource_type import Cloud, OrdinaryType, TypeFailure, Values
from engine.deploy.providers.digitalocean.spaces_bucket import put_document, region_and_name, spaces_region
from engine.deploy.providers.digitalocean.spaces_xml import cors_document, cors_values, unsaid

METHODS = ("GET", "PUT", "POST", "DELETE", "HEAD")
_TEXTS = Property(Kind.SET, element=Property(Kind.STRING))
_RULE = {
    "allowedHeaders": _TEXTS,
    "allowedMethods": Property(Kind.SET, required=True, element=Property(Kind.STRING, validate=one_of(*METHODS))),
    "allowedOrigins": Property(Kind.SET, required=True, element=Property(Kind.STRING)),
    "exposeHeaders": _TEXTS,
    "id": text(validate=at_most(255)),
    "maxAgeSeconds": Property(Kind.NUMBER),
}


class SpacesBucketCorsConfiguration(OrdinaryType):
    """The CORS rules of a bucket, all of them. Its id is the bucket's name."""

    token = "digitalocean:index/spacesBucketCorsConfiguration:SpacesBucketCorsConfiguration"
    noun = "Spaces bucket CORS configuration"
    create_seconds = 300.0
    delete_seconds = 300.0
    needs_token = False
    schema = Schema(
        properties={
            "bucket": text(required=True, replace=True),
            "region": spaces_region(required=True),
            "corsRules": Property(Kind.SET, required=True, element=Property(Kind.OBJECT, fields=_RULE)),
        },
        renamed={"corsRules": "cors_rule"},
    )

    async def create(self, cloud: Cloud, inputs: PropertyMap) -> tuple[str, Values]:
        region, bucket = cloud.spaces(inputs["region"]), str(inputs["bucket"])
        await put_document(region, bucket, "cors", cors_document(inputs["corsRules"]))
        values = await self.read(cloud, bucket, inputs)
        if values is None:
            raise TypeFailure(f"Error configuring CORS for Spaces bucket {bucket}: the rules are gone at once")
        return bucket, {**values, "corsRules": [unsaid(rule) for rule in values["corsRules"]]}

    async def read(self, cloud: Cloud, id: str, known: PropertyMap) -> Values | None:
        answer = await cloud.spaces(known["region"]).find("GET", id, query={"cors": ""})
        if answer is None:
            return None
        return {"bucket": id, "region": known["region"], "corsRules": cors_values(answer.tree())}

    async def update(
        self, cloud: Cloud, id: str, old: PropertyMap, new: PropertyMap, changed: frozenset[str]
    ) -> Values:
        return (await self.create(cloud, new))[1]

    async def delete(self, cloud: Cloud, id: str, outputs: PropertyMap) -> None:
        if not outputs.get("region"):
            raise TypeFailure(f"the region of bucket {id} is not known; refresh the stack")
        await cloud.spaces(outputs["region"]).find("DELETE", id, query={"cors": ""})

    async def imported(self, cloud: Cloud, id: str) -> tuple[str, PropertyMap]:
        region, bucket = region_and_name(id, "a Spaces bucket CORS configuration")
        return bucket, {"region": region, "bucket": bucket}

    async def lookup(self, cloud: Cloud, inputs: PropertyMap) -> str | None:
        """Setting the rules again is harmless, so nobody needs to be found."""
        return None
