"""`digitalocean:index/spacesBucket:SpacesBucket`: a bucket of one region; its name is unique in all of Spaces."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any
from urllib.parse import unquote_plus

from engine.deploy.property import PropertyMap, strip_secrets
from engine.deploy.providers.bridge.schema import (
    Kind,
    Property,
    Schema,
    at_least,
    at_most,
    one_of,
    output,
    stored_inputs,
    text,
)
from engine.deploy.providers.digitalocean.resource_type import Cloud, HalfDone, OrdinaryType, TypeFailure, Values
from engine.deploy.providers.digitalocean.spaces_api import REGIONS, Answer, Content, Region, SpacesError
from engine.deploy.providers.digitalocean.spaces_xml import (
    cors_document,
    delete_document,
    lifecycle_document,
    lifecycle_values,
    unsaid,
    versioning_document,
)

ACLS = ("private", "public-read")
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_TEXTS = Property(Kind.LIST, element=Property(Kind.STRING))
_NEEDED_TEXTS = Property(Kind.LIST, required=True, element=Property(Kind.STRING))
_ALL_USERS = "http://acs.amazonaws.com/groups/global/AllUsers"
SETTINGS = ("acl", "corsRules", "versioning", "lifecycleRules")
"""What is set by calls of its own, in this order."""


def bucket_name_fault(value: str) -> str:
    """What is wrong with a bucket's name, or ""."""
    if _NAME.fullmatch(value) and ".." not in value:
        return ""
    return "must have 3 to 63 lower-case letters, digits, dashes and dots, and begin and end with a letter or digit"


def _date_fault(value: str) -> str:
    try:
        date.fromisoformat(value)
    except ValueError:
        return "must be a date like 2026-01-31"
    return ""


def spaces_region(**options: Any) -> Property:
    """The `region` of what is in Spaces."""
    return text(replace=True, validate=one_of(*REGIONS, any_case=True), **options)


_CORS_RULE = {
    "allowedMethods": _NEEDED_TEXTS,
    "allowedOrigins": _NEEDED_TEXTS,
    "allowedHeaders": _TEXTS,
    "maxAgeSeconds": Property(Kind.NUMBER, default=0),
}
_EXPIRATION = {
    "date": text(validate=_date_fault),
    "days": Property(Kind.NUMBER, validate=at_least(0)),
    "expiredObjectDeleteMarker": Property(Kind.BOOL),
}
_LIFECYCLE_RULE = {
    "id": text(computed=True, validate=at_most(255)),
    "prefix": Property(Kind.STRING),
    "enabled": Property(Kind.BOOL, required=True),
    "abortIncompleteMultipartUploadDays": Property(Kind.NUMBER),
    "expiration": Property(Kind.SINGLE, fields=_EXPIRATION),
    "noncurrentVersionExpiration": Property(Kind.SINGLE, fields={"days": Property(Kind.NUMBER, validate=at_least(1))}),
}


class SpacesBucket(OrdinaryType):
    """A bucket. Its id is its name."""

    token = "digitalocean:index/spacesBucket:SpacesBucket"
    noun = "Spaces bucket"
    create_seconds = 600.0
    delete_seconds = 1800.0
    needs_token = False
    schema = Schema(
        properties={
            "name": text(required=True, automatic_name=True, replace=True, validate=bucket_name_fault),
            "region": spaces_region(default="nyc3", default_in_inputs=True, stored=str.lower),
            "acl": text(default="private", default_in_inputs=True, validate=one_of(*ACLS)),
            "corsRules": Property(Kind.LIST, element=Property(Kind.OBJECT, fields=_CORS_RULE)),
            "versioning": Property(
                Kind.SINGLE, default={"enabled": False}, fields={"enabled": Property(Kind.BOOL, default=False)}
            ),
            "lifecycleRules": Property(Kind.LIST, element=Property(Kind.OBJECT, fields=_LIFECYCLE_RULE)),
            "forceDestroy": Property(Kind.BOOL, default=False),
            "bucketUrn": output(Kind.STRING),
            "bucketDomainName": output(Kind.STRING),
            "endpoint": output(Kind.STRING),
        },
        renamed={"bucketUrn": "urn", "corsRules": "cors_rule", "lifecycleRules": "lifecycle_rule"},
    )

    def check_extra(self, inputs: PropertyMap) -> list[tuple[str, str]]:
        rules = strip_secrets(inputs.get("lifecycleRules"))
        faults = []
        for i, rule in enumerate(rules if isinstance(rules, list) else []):
            actions = ("abortIncompleteMultipartUploadDays", "expiration", "noncurrentVersionExpiration")
            if isinstance(rule, dict) and all(rule.get(name) is None for name in actions):
                path = f"lifecycleRules[{i}]"
                faults.append((path, f"{path} does nothing: give one of {', '.join(actions)}"))
        return faults

    async def create(self, cloud: Cloud, inputs: PropertyMap) -> tuple[str, Values]:
        known = stored_inputs(self.schema, inputs)
        name, region = known["name"], cloud.spaces(known["region"])
        try:
            await region.call("PUT", name, headers={"x-amz-acl": known["acl"]})
        except SpacesError as err:
            # An earlier try may have made it without an answer; what has something in it is not new.
            lost = err.code == "BucketAlreadyOwnedByYou" and err.attempts > 1
            if not lost or await self.lookup(cloud, inputs) is None:
                raise TypeFailure(f"Error creating Spaces bucket: {err}") from err
        try:
            await self._wait_until_there(region, name)
            given = {n for n in SETTINGS if n != "acl" and inputs.get(n)}
            await _configure(region, name, known, given)
            values = await self.read(cloud, name, known)
        except SpacesError as err:
            raise HalfDone(f"Error creating Spaces bucket: {err}", id=name) from err
        if values is None:
            raise TypeFailure(f"Error creating Spaces bucket: {name} is gone right after it was created")
        for rule in values["lifecycleRules"]:
            rule["expiration"] = unsaid(rule["expiration"])
        return name, values

    async def _wait_until_there(self, region: Region, name: str) -> None:
        waiter = region.waiter()
        while await region.find("HEAD", name) is None:
            if not await waiter.again():
                raise HalfDone(f"Failed to check availability of Spaces bucket {name}: it does not appear", id=name)

    async def read(self, cloud: Cloud, id: str, known: PropertyMap) -> Values | None:
        region = cloud.spaces(known["region"])
        if await region.find("HEAD", id) is None:
            return None
        versioning = (await region.call("GET", id, query={"versioning": ""})).tree()
        lifecycle = await region.find("GET", id, query={"lifecycle": ""})
        return {
            **bucket_values(id, region.slug),
            "acl": known.get("acl") or await _acl(region, id),
            "corsRules": known.get("corsRules") or [],  # told by the other resource type; the official provider does so
            "versioning": {"enabled": versioning.findtext("Status") == "Enabled"},
            "lifecycleRules": lifecycle_values(lifecycle.tree()) if lifecycle else [],
            "forceDestroy": bool(known.get("forceDestroy")),
        }

    async def update(
        self, cloud: Cloud, id: str, old: PropertyMap, new: PropertyMap, changed: frozenset[str]
    ) -> Values:
        try:
            await _configure(cloud.spaces(new["region"]), id, new, changed)
            values = await self.read(cloud, id, new)
        except SpacesError as err:
            raise HalfDone(f"Error updating Spaces bucket ({id}): {err}", id=id) from err
        if values is None:
            raise TypeFailure(f"Error updating Spaces bucket: {id} is gone; refresh the stack")
        return values

    async def delete(self, cloud: Cloud, id: str, outputs: PropertyMap) -> None:
        region, waiter = cloud.spaces(outputs.get("region") or "nyc3"), cloud.waiter()
        while True:
            try:
                await region.find("DELETE", id)
                return
            except SpacesError as err:
                if err.code != "BucketNotEmpty":
                    raise
                if not outputs.get("forceDestroy"):
                    hint = "set forceDestroy to delete what is in it as well, and update before you destroy"
                    raise TypeFailure(f'{err} "{id}": {hint}') from err
                await _empty(region, id)
                if not await waiter.again():
                    raise

    async def imported(self, cloud: Cloud, id: str) -> tuple[str, PropertyMap]:
        region, name = region_and_name(id, "a Spaces bucket")
        return name, {"region": region, "name": name, "forceDestroy": False}

    async def lookup(self, cloud: Cloud, inputs: PropertyMap) -> str | None:
        """By name, in the account, and empty: a bucket with something in it was there before."""
        name, region = inputs["name"], cloud.spaces(inputs.get("region") or "nyc3")
        try:
            found = await region.find("GET", name, query={"versions": "", "max-keys": "1"})
        except SpacesError as err:
            if err.status == 403:  # somebody else's
                return None
            raise
        tree = None if found is None else found.tree()
        if tree is None:
            return None
        if tree.find("Version") is not None or tree.find("DeleteMarker") is not None:
            raise TypeFailure(
                f"there is a Spaces bucket {name!r} with objects in it, which this stack has not made: "
                f"import it (`{region.slug},{name}`) or choose another name"
            )
        return str(name)


def region_and_name(id: str, noun: str) -> tuple[str, str]:
    """What an import's id says.

    Raises:
        TypeFailure: it is no `region,name`.
    """
    region, _, name = id.partition(",")
    if not name or region.lower() not in REGIONS:
        raise TypeFailure(f"importing {noun} requires the format: <region>,<name>")
    return region.lower(), name


def bucket_values(name: str, region: str) -> Values:
    """What follows from a bucket's name and region; official names, whatever the endpoint."""
    return {
        "name": name,
        "region": region,
        "bucketUrn": f"do:space:{name}",
        "bucketDomainName": f"{name}.{region}.digitaloceanspaces.com",
        "endpoint": f"{region}.digitaloceanspaces.com",
    }


async def _acl(region: Region, name: str) -> str:
    tree = (await region.call("GET", name, query={"acl": ""})).tree()
    is_public = any(e.text == _ALL_USERS for e in tree.iter("URI"))
    return "public-read" if is_public else "private"


async def put_document(region: Region, bucket: str, what: str, body: bytes) -> None:
    """Set one of a bucket's settings."""
    content = Content.of(body)
    digest = base64.b64encode(bytes.fromhex(content.md5)).decode()
    headers = {"content-md5": digest, "content-type": "application/xml"}
    await region.call("PUT", bucket, query={what: ""}, headers=headers, content=content)


async def _configure(region: Region, name: str, new: PropertyMap, changed: set[str] | frozenset[str]) -> None:
    """Set what has changed, all of it anew."""
    if "acl" in changed:
        await region.call("PUT", name, query={"acl": ""}, headers={"x-amz-acl": new["acl"]})
    if "corsRules" in changed:
        await _set_or_remove(region, name, "cors", cors_document, new.get("corsRules"))
    if "versioning" in changed:
        enabled = bool((new.get("versioning") or {}).get("enabled"))
        await put_document(region, name, "versioning", versioning_document(enabled))
    if "lifecycleRules" in changed:
        await _set_or_remove(region, name, "lifecycle", lifecycle_document, new.get("lifecycleRules"))


async def _set_or_remove(region: Region, name: str, what: str, document: Any, rules: Sequence[Any] | None) -> None:
    if rules:
        await put_document(region, name, what, document(rules))
    else:
        await region.find("DELETE", name, query={what: ""})


async def _empty(region: Region, name: str) -> None:
    """Delete every version of everything."""
    while True:
        page = (await region.call("GET", name, query={"versions": "", "encoding-type": "url"})).tree()
        found = [*page.findall("Version"), *page.findall("DeleteMarker")]
        keys = [
            {"key": unquote_plus(e.findtext("Key") or ""), "version": e.findtext("VersionId") or "null"} for e in found
        ]
        if keys:
            await delete_versions(region, name, keys)
        if not keys or page.findtext("IsTruncated") != "true":
            return


async def delete_versions(region: Region, name: str, keys: Sequence[Mapping[str, str]]) -> None:
    """Delete versions of objects, at most a thousand.

    Raises:
        TypeFailure: one of them could not be deleted.
    """
    content = Content.of(delete_document([dict(k) for k in keys]))
    digest = base64.b64encode(bytes.fromhex(content.md5)).decode()
    headers = {"content-md5": digest, "content-type": "application/xml"}
    answer: Answer = await region.call("POST", name, query={"delete": ""}, headers=headers, content=content)
    if (error := answer.tree().find("Error")) is not None:
        said = f"{error.findtext('Code')}: {error.findtext('Message')}"
        raise TypeFailure(f"object {error.findtext('Key')!r} of {name} cannot be deleted: {said}")
