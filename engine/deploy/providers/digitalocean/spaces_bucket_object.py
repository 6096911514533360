"""`digitalocean:index/spacesBucketObject:SpacesBucketObject`: an object in a bucket, from text or from a file."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path

from engine.deploy.property import UNKNOWN, PropertyMap, strip_secrets
from engine.deploy.provider import DiffKind
from engine.deploy.providers.bridge.schema import Kind, Property, Schema, not_empty, one_of, output, text
from engine.deploy.providers.digitalocean.resource_type import Cloud, OrdinaryType, TypeFailure, Values
from engine.deploy.providers.digitalocean.spaces_api import REGIONS, Answer, Content, Region
from engine.deploy.providers.digitalocean.spaces_bucket import ACLS, delete_versions, spaces_region

_HEADERS = {
    "cacheControl": "cache-control",
    "contentDisposition": "content-disposition",
    "contentEncoding": "content-encoding",
    "contentLanguage": "content-language",
    "contentType": "content-type",
    "websiteRedirect": "x-amz-website-redirect-location",
}
_META = "x-amz-meta-"
_SOURCES = ("source", "content", "contentBase64")
_IN_PLACE = frozenset({"acl", "forceDestroy"})
_ANY = Property(Kind.STRING)


class SpacesBucketObject(OrdinaryType):
    """An object. Its id is its key; putting it again replaces it."""

    token = "digitalocean:index/spacesBucketObject:SpacesBucketObject"
    noun = "Spaces bucket object"
    create_seconds = 3600.0
    delete_seconds = 600.0
    needs_token = False
    schema = Schema(
        properties={
            "region": spaces_region(required=True),
            "bucket": text(required=True, replace=True),
            "key": text(required=True, replace=True),
            "acl": text(default="private", default_in_inputs=True, validate=one_of(*ACLS)),
            "cacheControl": _ANY,
            "contentDisposition": _ANY,
            "contentEncoding": _ANY,
            "contentLanguage": _ANY,
            "metadata": Property(Kind.MAP, element=Property(Kind.STRING)),
            "contentType": text(computed=True),
            "source": _ANY,
            "content": _ANY,
            "contentBase64": _ANY,
            "etag": text(computed=True, validate=not_empty),
            "versionId": output(Kind.STRING),
            "websiteRedirect": _ANY,
            "forceDestroy": Property(Kind.BOOL, default=False),
        },
    )

    def check_extra(self, inputs: PropertyMap) -> list[tuple[str, str]]:
        plain = strip_secrets(inputs)
        given = [name for name in _SOURCES if plain.get(name) is not None]
        faults = [(name, f"{name} conflicts with {given[0]}: give one of {', '.join(_SOURCES)}") for name in given[1:]]
        metadata = plain.get("metadata")
        for key in metadata if isinstance(metadata, dict) else ():
            if key != key.lower():
                faults.append((f"metadata.{key}", f"Metadata must be lowercase only. Offending key: {key!r}"))
        if isinstance(encoded := plain.get("contentBase64"), str):
            try:
                base64.b64decode(encoded, validate=True)
            except binascii.Error as err:
                faults.append(("contentBase64", f"contentBase64 is not in base64: {err}"))
        return faults

    def recomputed(self, old_outputs: PropertyMap, new_inputs: PropertyMap) -> Mapping[str, DiffKind]:
        """Another content is another version; the official provider sees it in the hash only."""
        new = new_inputs.get("etag")
        changes = new is not None and new is not UNKNOWN and new != old_outputs.get("etag")
        return {"versionId": DiffKind.UPDATE} if changes else {}

    async def create(self, cloud: Cloud, inputs: PropertyMap) -> tuple[str, Values]:
        await _put(cloud.spaces(inputs["region"]), inputs)
        values = await self.read(cloud, inputs["key"], inputs)
        if values is None:
            raise TypeFailure(f"Error putting object in Spaces bucket ({inputs['bucket']}): it is gone at once")
        return str(inputs["key"]), {**values, "metadata": values["metadata"] or None}

    async def read(self, cloud: Cloud, id: str, known: PropertyMap) -> Values | None:
        answer = await cloud.spaces(known["region"]).find("HEAD", known["bucket"], known["key"])
        return None if answer is None else _values(answer, known)

    async def update(
        self, cloud: Cloud, id: str, old: PropertyMap, new: PropertyMap, changed: frozenset[str]
    ) -> Values:
        region = cloud.spaces(new["region"])
        if changed - _IN_PLACE:
            # The type that Spaces chose for the last content is not the program's.
            await _put(region, new)
        elif "acl" in changed:
            await region.call("PUT", new["bucket"], new["key"], query={"acl": ""}, headers={"x-amz-acl": new["acl"]})
        values = await self.read(cloud, id, new)
        if values is None:
            raise TypeFailure(f"Error updating Spaces bucket object: {id} is gone; refresh the stack")
        return values

    async def delete(self, cloud: Cloud, id: str, outputs: PropertyMap) -> None:
        if not outputs.get("bucket"):
            raise TypeFailure(f"the bucket of {id} is not known; refresh the stack")
        region, bucket, key = cloud.spaces(outputs["region"]), outputs["bucket"], outputs["key"]
        if not outputs.get("versionId"):
            await region.find("DELETE", bucket, key)
            return
        while versions := await _versions(region, bucket, key):
            await delete_versions(region, bucket, [{"key": key, "version": v} for v in versions])

    async def imported(self, cloud: Cloud, id: str) -> tuple[str, PropertyMap]:
        region, _, rest = id.partition(",")
        bucket, _, key = rest.partition(",")
        if region.lower() not in REGIONS or not bucket or not key:
            raise TypeFailure("importing a Spaces bucket object requires the format: <region>,<bucket>,<key>")
        return key, {"region": region, "bucket": bucket, "key": key, "acl": "private"}

    async def lookup(self, cloud: Cloud, inputs: PropertyMap) -> str | None:
        """An object with the content that the program says; another one the next create replaces anyway."""
        answer = await cloud.spaces(inputs["region"]).find("HEAD", inputs["bucket"], inputs["key"])
        if answer is None or _etag(answer) != (await _content(inputs)).md5:
            return None
        return str(inputs["key"])


async def _content(inputs: PropertyMap) -> Content:
    if inputs.get("source"):
        path = Path(inputs["source"]).expanduser()
        try:
            return await Content.of_file(path)
        except OSError as err:
            raise TypeFailure(f"Error opening Spaces bucket object source ({path}): {err.strerror or err}") from err
    if inputs.get("contentBase64"):
        return Content.of(base64.b64decode(inputs["contentBase64"]))
    return Content.of((inputs.get("content") or "").encode())


async def _put(region: Region, inputs: PropertyMap) -> None:
    content = await _content(inputs)
    headers = {"x-amz-acl": inputs.get("acl") or "private"}
    headers |= {header: inputs[name] for name, header in _HEADERS.items() if inputs.get(name)}
    headers |= {f"{_META}{key}": value for key, value in (inputs.get("metadata") or {}).items()}
    for name, value in headers.items():
        if not value.isascii():
            raise TypeFailure(f"{name} of object {inputs['key']!r} may only have ASCII characters")
    headers["content-md5"] = base64.b64encode(bytes.fromhex(content.md5)).decode()
    await region.call("PUT", inputs["bucket"], inputs["key"], headers=headers, content=content)


async def _versions(region: Region, bucket: str, key: str) -> list[str]:
    """The versions and delete markers of one key; keys that only begin like it are others."""
    answer = await region.find("GET", bucket, query={"versions": "", "prefix": key})
    tree = None if answer is None else answer.tree()
    found = [] if tree is None else [*tree.findall("Version"), *tree.findall("DeleteMarker")]
    return [e.findtext("VersionId") or "null" for e in found if e.findtext("Key") == key]


def _etag(answer: Answer) -> str:
    return answer.headers.get("etag", "").strip('"')


def _values(answer: Answer, known: PropertyMap) -> Values:
    """Outputs; what Spaces does not tell, such as the content, stays as it is known."""
    told = {name: answer.headers.get(header) or "" for name, header in _HEADERS.items()}
    metadata = {n.removeprefix(_META): v for n, v in answer.headers.items() if n.startswith(_META)}
    kept = ("region", "bucket", "key", "acl", *_SOURCES)
    return {
        **{name: known.get(name) for name in kept},
        **told,
        "metadata": metadata,
        "etag": _etag(answer),
        "versionId": answer.headers.get("x-amz-version-id") or "",
        "forceDestroy": bool(known.get("forceDestroy")),
    }
