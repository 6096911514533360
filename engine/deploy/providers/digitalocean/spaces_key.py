"""`digitalocean:index/spacesKey:SpacesKey`: a key to Spaces, with what it may do in which bucket."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engine.deploy.property import PropertyMap
from engine.deploy.providers.bridge.schema import Kind, Property, Schema, one_of, output, text
from engine.deploy.providers.digitalocean.adopting import post_once
from engine.deploy.providers.digitalocean.resource_type import Cloud, OrdinaryType, TypeFailure, Values

PERMISSIONS = ("read", "readwrite", "fullaccess")
_GRANT = {
    "bucket": Property(Kind.STRING, required=True),  # empty with fullaccess: all buckets
    "permission": text(required=True, validate=one_of(*PERMISSIONS)),
}


class SpacesKey(OrdinaryType):
    """A key. Its id is the access key; the secret is told once and then only known to the state."""

    token = "digitalocean:index/spacesKey:SpacesKey"
    noun = "Spaces key"
    create_seconds = 120.0
    delete_seconds = 120.0
    schema = Schema(
        properties={
            "name": text(required=True, automatic_name=True),
            "grants": Property(Kind.LIST, element=Property(Kind.OBJECT, fields=_GRANT)),
            "accessKey": output(Kind.STRING),
            "secretKey": output(Kind.STRING),
            "createdAt": output(Kind.STRING),
        },
        renamed={"grants": "grant"},
    )

    async def create(self, cloud: Cloud, inputs: PropertyMap) -> tuple[str, Values]:
        answer = await post_once(cloud, "/v2/spaces/keys", _body(inputs), lambda: self.lookup(cloud, inputs))
        assert not isinstance(answer, str)  # a key is never adopted
        key = answer["key"]
        return str(key["access_key"]), {**key_values(key), "secretKey": key["secret_key"]}

    async def read(self, cloud: Cloud, id: str, known: PropertyMap) -> Values | None:
        answer = await cloud.get(f"/v2/spaces/keys/{id}")
        return None if answer is None else {**key_values(answer["key"]), "secretKey": known.get("secretKey")}

    async def update(
        self, cloud: Cloud, id: str, old: PropertyMap, new: PropertyMap, changed: frozenset[str]
    ) -> Values:
        answer = await cloud.put(f"/v2/spaces/keys/{id}", _body(new))
        return {**key_values(answer["key"]), "secretKey": old.get("secretKey")}

    async def delete(self, cloud: Cloud, id: str, outputs: PropertyMap) -> None:
        await cloud.delete(f"/v2/spaces/keys/{id}")

    async def imported(self, cloud: Cloud, id: str) -> tuple[str, PropertyMap]:
        raise TypeFailure("a Spaces key cannot be imported: DigitalOcean tells its secret only when it is made")

    async def lookup(self, cloud: Cloud, inputs: PropertyMap) -> str | None:
        found = [k for k in await cloud.pages("/v2/spaces/keys", "keys") if k["name"] == inputs["name"]]
        if not found:
            return None
        keys = ", ".join(str(k["access_key"]) for k in found)
        raise TypeFailure(
            f"a Spaces key named {inputs['name']!r} may have been made, and its secret is lost: delete it ({keys}) or "
            "choose another name, and update again"
        )


def _body(inputs: PropertyMap) -> dict[str, Any]:
    grants = [{"bucket": g["bucket"], "permission": g["permission"]} for g in inputs.get("grants") or []]
    return {"name": inputs["name"], "grants": grants}


def key_values(key: Mapping[str, Any]) -> Values:
    """Outputs from the API's description, without the secret."""
    return {
        "name": key["name"],
        "grants": [{"bucket": g["bucket"], "permission": g["permission"]} for g in key.get("grants") or []],
        "accessKey": key["access_key"],
        "createdAt": key["created_at"],
    }
