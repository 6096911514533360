"""`digitalocean:index/spacesBucketPolicy:SpacesBucketPolicy`: who may do what in a bucket, as a JSON document."""

from __future__ import annotations

import json
from typing import Any

from engine.deploy.property import PropertyMap
from engine.deploy.providers.bridge.schema import Schema, text
from engine.deploy.providers.digitalocean.resource_type import Cloud, OrdinaryType, TypeFailure, Values
from engine.deploy.providers.digitalocean.spaces_api import Content
from engine.deploy.providers.digitalocean.spaces_bucket import region_and_name, spaces_region

_UNORDERED = ("Action", "NotAction", "Resource", "NotResource", "Principal", "NotPrincipal")


def _json_fault(value: str) -> str:
    try:
        policy = json.loads(value)
    except ValueError as err:
        return f"contains an invalid JSON policy: {err}"
    return "" if isinstance(policy, dict) else "must be a JSON object"


def same_policy(one: str, other: str) -> bool:
    """Whether two policies say the same: a list of one is that one, and the order of actions means nothing."""
    try:
        return bool(_meaning(json.loads(one)) == _meaning(json.loads(other)))
    except ValueError:
        return one == other


def _meaning(value: Any, unordered: bool = False) -> Any:
    if isinstance(value, dict):
        return {k: _meaning(v, k in _UNORDERED or (unordered and k == "AWS")) for k, v in value.items()}
    if isinstance(value, list):
        members = [_meaning(v) for v in value]
        if len(members) == 1:
            return members[0]
        return sorted(members, key=str) if unordered else members
    return value


class SpacesBucketPolicy(OrdinaryType):
    """The policy of a bucket. Its id is the bucket's name."""

    token = "digitalocean:index/spacesBucketPolicy:SpacesBucketPolicy"
    noun = "Spaces bucket policy"
    create_seconds = 300.0
    delete_seconds = 300.0
    needs_token = False
    schema = Schema(
        properties={
            "bucket": text(required=True, replace=True),
            "region": spaces_region(required=True),
            "policy": text(required=True, validate=_json_fault, same=same_policy),
        },
    )

    async def create(self, cloud: Cloud, inputs: PropertyMap) -> tuple[str, Values]:
        region, bucket, policy = cloud.spaces(inputs["region"]), str(inputs["bucket"]), str(inputs["policy"])
        headers = {"content-type": "application/json"}
        await region.call("PUT", bucket, query={"policy": ""}, headers=headers, content=Content.of(policy.encode()))
        return bucket, {"bucket": bucket, "region": inputs["region"], "policy": policy}

    async def read(self, cloud: Cloud, id: str, known: PropertyMap) -> Values | None:
        answer = await cloud.spaces(known["region"]).find("GET", id, query={"policy": ""})
        if answer is None:
            return None
        told, before = answer.body.decode(), known.get("policy")
        policy = before if before and same_policy(told, before) else told
        return {"bucket": id, "region": known["region"], "policy": policy}

    async def update(
        self, cloud: Cloud, id: str, old: PropertyMap, new: PropertyMap, changed: frozenset[str]
    ) -> Values:
        return (await self.create(cloud, new))[1]

    async def delete(self, cloud: Cloud, id: str, outputs: PropertyMap) -> None:
        if not outputs.get("region"):
            raise TypeFailure(f"the region of bucket {id} is not known; refresh the stack")
        await cloud.spaces(outputs["region"]).find("DELETE", id, query={"policy": ""})

    async def imported(self, cloud: Cloud, id: str) -> tuple[str, PropertyMap]:
        region, bucket = region_and_name(id, "a Spaces bucket policy")
        return bucket, {"region": region, "bucket": bucket}

    async def lookup(self, cloud: Cloud, inputs: PropertyMap) -> str | None:
        """Setting the policy again is harmless, so nobody needs to be found."""
        return None
