"""`digitalocean:index/vpc:Vpc`: a private network of one region; its name is unique in the account."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from engine.deploy.property import PropertyMap
from engine.deploy.providers.bridge.schema import Kind, Schema, at_most, network_range, output, text
from engine.deploy.providers.digitalocean.adopting import post_once, read_created
from engine.deploy.providers.digitalocean.api import ApiError
from engine.deploy.providers.digitalocean.resource_type import Cloud, OrdinaryType, TypeFailure, Values


class Vpc(OrdinaryType):
    """A VPC; what is in it has to go first, and going takes a moment."""

    token = "digitalocean:index/vpc:Vpc"
    noun = "VPC"
    create_seconds = 120.0
    delete_seconds = 120.0
    schema = Schema(
        properties={
            "name": text(required=True, automatic_name=True),
            "region": text(required=True, replace=True),
            "description": text(validate=at_most(255)),
            "ipRange": text(computed=True, replace=True, validate=network_range),
            "createdAt": output(Kind.STRING),
            "default": output(Kind.BOOL),
            "vpcUrn": output(Kind.STRING),
        },
        renamed={"vpcUrn": "urn"},
        timeouts_seconds={"delete": 120},
    )

    async def create(self, cloud: Cloud, inputs: PropertyMap) -> tuple[str, Values]:
        body = {"name": inputs["name"], "region": inputs["region"]}
        optional = {"description": inputs.get("description"), "ip_range": inputs.get("ipRange")}
        body |= {key: value for key, value in optional.items() if value}
        answer = await post_once(cloud, "/v2/vpcs", body, lambda: self.lookup(cloud, inputs))
        id = answer if isinstance(answer, str) else str(answer["vpc"]["id"])
        return id, await read_created(cloud, self, id)

    async def read(self, cloud: Cloud, id: str, known: PropertyMap) -> Values | None:
        answer = await cloud.get(f"/v2/vpcs/{id}")
        return None if answer is None else vpc_values(answer["vpc"])

    async def update(
        self, cloud: Cloud, id: str, old: PropertyMap, new: PropertyMap, changed: frozenset[str]
    ) -> Values:
        body = {"name": new["name"], "description": new.get("description") or "", "default": bool(old.get("default"))}
        await cloud.put(f"/v2/vpcs/{id}", body)
        values = await self.read(cloud, id, old)
        if values is None:
            raise TypeFailure(f"Error updating VPC: {id} is gone; refresh the stack")
        return values

    async def delete(self, cloud: Cloud, id: str, outputs: PropertyMap) -> None:
        waiter = cloud.waiter()
        while True:
            try:
                await cloud.delete(f"/v2/vpcs/{id}")
                return
            except ApiError as err:
                # Members that are being deleted still count.
                if err.status not in (403, 409) or not await waiter.again():
                    raise

    async def lookup(self, cloud: Cloud, inputs: PropertyMap) -> str | None:
        """By name, and everything else the program said: a namesake that differs is somebody else's."""
        wanted = {
            "region": inputs["region"],
            "description": inputs.get("description") or "",
            "ip_range": inputs.get("ipRange"),
        }
        for vpc in await cloud.pages("/v2/vpcs", "vpcs"):
            if vpc["name"] != inputs["name"]:
                continue
            if all(value is None or vpc.get(key) == value for key, value in wanted.items()):
                return str(vpc["id"])
        return None


def vpc_values(vpc: Mapping[str, Any]) -> Values:
    """Outputs from the API's description."""
    return {
        "name": vpc["name"],
        "region": vpc["region"],
        "description": vpc.get("description") or "",
        "ipRange": vpc["ip_range"],
        "createdAt": go_time(vpc["created_at"]),
        "default": bool(vpc["default"]),
        "vpcUrn": vpc["urn"],
    }


def go_time(text: str) -> str:
    """A moment as Go's `Time.String` prints it in UTC: `2026-11-21 10:48:00.5 +0000 UTC`."""
    moment = datetime.fromisoformat(text)
    fraction = f".{moment.microsecond:06d}".rstrip("0") if moment.microsecond else ""
    return f"{moment:%Y-%m-%d %H:%M:%S}{fraction} +0000 UTC"
