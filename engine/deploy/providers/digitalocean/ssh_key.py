"""`digitalocean:index/sshKey:SshKey`: a public key of the account."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import Any

from engine.deploy.property import PropertyMap
from engine.deploy.providers.bridge.schema import Kind, Schema, output, text
from engine.deploy.providers.digitalocean.adopting import post_once, read_created
from engine.deploy.providers.digitalocean.resource_type import Cloud, OrdinaryType, TypeFailure, Values


class SshKey(OrdinaryType):
    """An SSH key; its text cannot change, spaces and newlines around it do not count."""

    token = "digitalocean:index/sshKey:SshKey"
    noun = "SSH Key"
    create_seconds = 120.0
    delete_seconds = 120.0
    schema = Schema(
        properties={
            "name": text(required=True, automatic_name=True),
            "publicKey": text(required=True, replace=True, same=lambda old, new: old.strip() == new.strip()),
            "fingerprint": output(Kind.STRING),
        },
        timeouts_seconds={"create": 120},
    )

    async def create(self, cloud: Cloud, inputs: PropertyMap) -> tuple[str, Values]:
        body = {"name": inputs["name"], "public_key": inputs["publicKey"]}
        answer = await post_once(cloud, "/v2/account/keys", body, lambda: self.lookup(cloud, inputs))
        id = answer if isinstance(answer, str) else str(answer["ssh_key"]["id"])
        return id, await read_created(cloud, self, id)

    async def read(self, cloud: Cloud, id: str, known: PropertyMap) -> Values | None:
        answer = await cloud.get(f"/v2/account/keys/{id}")
        return None if answer is None else _values(answer["ssh_key"])

    async def update(
        self, cloud: Cloud, id: str, old: PropertyMap, new: PropertyMap, changed: frozenset[str]
    ) -> Values:
        await cloud.put(f"/v2/account/keys/{id}", {"name": new["name"]})
        values = await self.read(cloud, id, old)
        if values is None:
            raise TypeFailure(f"Failed to update SSH key: {id} is gone")
        return values

    async def delete(self, cloud: Cloud, id: str, outputs: PropertyMap) -> None:
        await cloud.delete(f"/v2/account/keys/{id}")

    async def lookup(self, cloud: Cloud, inputs: PropertyMap) -> str | None:
        answer = await cloud.get(f"/v2/account/keys/{fingerprint(inputs['publicKey'])}")
        key = None if answer is None else answer["ssh_key"]
        return str(key["id"]) if key and key["name"] == inputs["name"] else None


def _values(key: Mapping[str, Any]) -> Values:
    return {"name": key["name"], "publicKey": key["public_key"], "fingerprint": key["fingerprint"]}


def fingerprint(public_key: str) -> str:
    """The MD5 fingerprint DigitalOcean names keys by: sixteen pairs of digits.

    Raises:
        TypeFailure: not the text of an OpenSSH public key.
    """
    words = public_key.split()
    try:
        blob = base64.b64decode(words[1], validate=True)
    except (IndexError, binascii.Error) as err:
        raise TypeFailure("publicKey is not an OpenSSH public key (`ssh-ed25519 AAAA… comment`)") from err
    digest = hashlib.md5(blob, usedforsecurity=False).hexdigest()
    return ":".join(digest[i : i + 2] for i in range(0, 32, 2))
