"""Buckets and what is in them: the provider against the sandbox's Spaces, two readings of the S3 API."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.deploy.property import PropertyMap
from engine.deploy.provider import DiffResult, PartialFailure, ProviderError
from engine.deploy.providers.digitalocean import DigitalOceanProvider
from engine.deploy.providers.digitalocean.provider import resource_types
from engine.model.budget import Unlimited
from engine.sandbox.app import SandboxApp
from engine.sandbox.assets import SpacesBucket
from engine.sandbox.cloud import Cloud
from engine.sandbox.faults import Faults
from engine.sandbox.spaces.access import KeyPair
from engine.sandbox.spaces.service import Spaces

SDK = Path(str(find_spec("pulumi_digitalocean").origin)).parent  # type: ignore[union-attr]
ENDPOINT = "http://do.test/spaces/{{.Region}}"
ENVIRONMENT = {"SPACES_ACCESS_KEY_ID": "KEY", "SPACES_SECRET_ACCESS_KEY": "secret", "SPACES_ENDPOINT_URL": ENDPOINT}
TOKENS = {token.rsplit(":", 1)[1]: token for token in resource_types()}
ORIGIN = {"allowedMethods": ["GET"], "allowedOrigins": ["*"]}
EXPIRY = {"enabled": True, "prefix": "logs/", "expiration": {"days": 3}}
POLICY = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": "*", "Action": ["s3:GetObject"], "Resource": "arn:aws:s3:::box/<a&b>"}
    ],
}


class Dropping(httpx.ASGITransport):
    """A connection that the sandbox kills is one that breaks."""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            return await super().handle_async_request(request)
        except ConnectionError as err:
            raise httpx.ReadError("connection lost", request=request) from err


@dataclass
class Desk:
    """A provider, the cloud it works on, and the steps of an engine."""

    provider: DigitalOceanProvider
    cloud: Cloud
    faults: Faults
    spaces: Spaces

    async def check(self, kind: str, inputs: PropertyMap, olds: PropertyMap | None = None) -> PropertyMap:
        result = await self.provider.check(f"urn::{kind}::x", TOKENS[kind], olds or {}, inputs, b"seed")
        assert not result.failures, result.failures
        return result.inputs

    async def create(self, kind: str, inputs: PropertyMap) -> tuple[str, PropertyMap, PropertyMap]:
        checked = await self.check(kind, inputs)
        created = await self.provider.create("u", TOKENS[kind], checked, 0, preview=False)
        return created.id, checked, created.outputs

    async def diff(self, kind: str, id: str, outputs: PropertyMap, old: PropertyMap, new: PropertyMap) -> DiffResult:
        return await self.provider.diff("u", TOKENS[kind], id, old, outputs, new, ())

    async def update(self, kind: str, made: tuple[str, PropertyMap, PropertyMap], inputs: PropertyMap) -> PropertyMap:
        id, old, outputs = made
        new = await self.check(kind, inputs, old)
        found = await self.diff(kind, id, outputs, old, new)
        assert found.changes and not found.replace_keys, found
        return await self.provider.update("u", TOKENS[kind], id, old, outputs, new, 0, (), preview=False)

    async def delete(self, kind: str, made: tuple[str, PropertyMap, PropertyMap]) -> None:
        await self.provider.delete("u", TOKENS[kind], made[0], made[1], made[2], 0)

    async def is_gone(self, kind: str, made: tuple[str, PropertyMap, PropertyMap]) -> bool:
        return (await self.provider.read("u", TOKENS[kind], made[0], made[1], made[2])).id == ""

    async def look_up(self, name: str, /, **args: Any) -> PropertyMap:
        return await self.provider.invoke(f"digitalocean:index/{name}:{name}", args)

    @property
    def buckets(self) -> list[str]:
        return [b for a in self.cloud.accounts.values() for b in a.table(SpacesBucket)]

    def requests(self, method: str) -> list[str]:
        return [r.path for r in self.cloud.journal.requests if r.method == method]


@pytest.fixture
def sandbox(clock: Any, tmp_path: Path) -> Iterator[SandboxApp]:
    cloud, faults = Cloud(clock), Faults()
    spaces = Spaces(cloud, faults, tmp_path / "spaces", KeyPair("KEY", "secret", "me"))
    yield SandboxApp(cloud, faults, spaces=spaces)
    spaces.close()


@pytest.fixture
async def desk(sandbox: SandboxApp, clock: Any) -> AsyncIterator[Desk]:
    provider = DigitalOceanProvider(
        environment=ENVIRONMENT, budget=Unlimited(), clock=clock, transport=Dropping(sandbox)
    )
    await provider.configure({})
    assert sandbox.spaces is not None
    yield Desk(provider, sandbox.cloud, sandbox.faults, sandbox.spaces)
    await provider.close()


@pytest.fixture
async def box(desk: Desk) -> tuple[str, PropertyMap, PropertyMap]:
    return await desk.create("SpacesBucket", {"name": "box", "forceDestroy": True})


OBJECT = {"region": "nyc3", "bucket": "box", "key": "a/../b c+ü?.txt", "content": "héllo"}
INPUTS: dict[str, PropertyMap] = {
    "SpacesBucketObject": {**OBJECT, "metadata": {"who": "me"}, "cacheControl": "no-store", "contentType": "text/css"},
    "SpacesBucketCorsConfiguration": {"region": "nyc3", "bucket": "box", "corsRules": [
        {"allowedMethods": ["PUT", "GET"], "allowedOrigins": ["https://b", "https://a"], "maxAgeSeconds": 5, "id": "i"},
    ]},
    "SpacesBucketPolicy": {"region": "nyc3", "bucket": "box", "policy": json.dumps(POLICY, indent=2)},
}  # fmt: skip
CHANGES: dict[str, PropertyMap] = {
    "SpacesBucketObject": {"content": "other", "acl": "public-read"},
    "SpacesBucketCorsConfiguration": {"corsRules": [ORIGIN]},
    "SpacesBucketPolicy": {"policy": json.dumps({**POLICY, "Id": "x"})},
}
IMPORT_IDS = {
    "SpacesBucket": "nyc3,box",
    "SpacesBucketObject": f"nyc3,box,{OBJECT['key']}",
    "SpacesBucketCorsConfiguration": "nyc3,box",
    "SpacesBucketPolicy": "nyc3,box",
}


async def test_a_bucket_has_the_official_defaults_and_outputs(desk: Desk) -> None:
    id, inputs, outputs = await desk.create("SpacesBucket", {"name": "box"})
    assert inputs == {"name": "box", "region": "nyc3", "acl": "private", "__defaults": ["acl", "region"]}
    assert id == "box"
    assert outputs == {
        "id": "box",
        "name": "box",
        "region": "nyc3",
        "acl": "private",
        "corsRules": [],
        "versioning": {"enabled": False},
        "lifecycleRules": [],
        "forceDestroy": False,
        "bucketUrn": "do:space:box",
        "bucketDomainName": "box.nyc3.digitaloceanspaces.com",
        "endpoint": "nyc3.digitaloceanspaces.com",
        "__pulumi_raw_state_delta": {
            "obj": {
                "ps": {
                    "corsRules": {"arr": {}},
                    "lifecycleRules": {"arr": {}},
                    "versioning": {"plu": {"i": {"obj": {}}}},
                },
                "renamed": {"bucketUrn": "urn", "corsRules": "cors_rule", "lifecycleRules": "lifecycle_rule"},
            }
        },
    }


async def test_a_bucket_without_a_name_gets_one(desk: Desk) -> None:
    inputs = await desk.check("SpacesBucket", {})
    assert inputs["name"].startswith("x-")
    assert await desk.check("SpacesBucket", {}, inputs) == inputs


async def test_a_bucket_is_changed_in_place(desk: Desk) -> None:
    program = {
        "name": "box", "region": "AMS3", "acl": "public-read", "versioning": {"enabled": True},
        "corsRules": [ORIGIN],
        "lifecycleRules": [EXPIRY, {"id": "n", "enabled": False, "noncurrentVersionExpiration": {"days": 2}}],
    }  # fmt: skip
    made = await desk.create("SpacesBucket", program)
    id, inputs, outputs = made
    assert outputs["region"] == "ams3"
    assert outputs["versioning"] == {"enabled": True}
    assert outputs["lifecycleRules"][0]["id"] == "rule-1"
    bucket = next(iter(desk.cloud.account("me").table(SpacesBucket).values()))
    assert (bucket.region, bucket.acl, bucket.versioning) == ("ams3", "public-read", "Enabled")
    assert bucket.cors[0]["origins"] == ["*"]
    read = await desk.provider.read("u", TOKENS["SpacesBucket"], id, inputs, outputs)
    assert read.inputs == inputs
    assert not (await desk.diff("SpacesBucket", id, read.outputs, inputs, inputs)).changes
    after = await desk.update("SpacesBucket", made, {"name": "box", "region": "ams3", "versioning": {"enabled": False}})
    assert (bucket.acl, bucket.versioning, bucket.cors, bucket.lifecycle) == ("private", "Suspended", [], [])
    assert (after["acl"], after["versioning"], after["lifecycleRules"]) == ("private", {"enabled": False}, [])


@pytest.mark.parametrize("change", [{"region": "ams3"}, {"name": "other"}])
async def test_another_region_or_name_is_another_bucket(desk: Desk, box: Any, change: PropertyMap) -> None:
    new = await desk.check("SpacesBucket", {"name": "box", **change}, box[1])
    found = await desk.diff("SpacesBucket", box[0], box[2], box[1], new)
    assert list(found.replace_keys) == list(change)


async def test_versioning_that_a_program_stops_mentioning_ends(desk: Desk) -> None:
    made = await desk.create("SpacesBucket", {"name": "box", "versioning": {"enabled": True}})
    after = await desk.update("SpacesBucket", made, {"name": "box"})
    assert after["versioning"] == {"enabled": False}
    inputs = await desk.check("SpacesBucket", {"name": "box"})
    assert not (await desk.diff("SpacesBucket", "box", after, inputs, inputs)).changes


@pytest.mark.parametrize("kind", INPUTS)
async def test_what_is_in_a_bucket_lives_and_dies(desk: Desk, box: Any, kind: str) -> None:
    made = await desk.create(kind, INPUTS[kind])
    id, inputs, outputs = made
    read = await desk.provider.read("u", TOKENS[kind], id, inputs, outputs)
    assert read.inputs == inputs
    assert read.outputs == outputs
    assert not (await desk.diff(kind, id, read.outputs, inputs, inputs)).changes
    imported = await desk.provider.read("u", TOKENS[kind], IMPORT_IDS[kind], {}, {})
    assert imported.id == id
    program = {**INPUTS[kind], **CHANGES[kind]}
    after = await desk.update(kind, made, program)
    new = await desk.check(kind, program, inputs)
    read = await desk.provider.read("u", TOKENS[kind], id, new, after)
    assert read.inputs == new
    assert not (await desk.diff(kind, id, read.outputs, new, new)).changes
    await desk.delete(kind, (id, new, after))
    assert await desk.is_gone(kind, (id, new, after))
    await desk.delete(kind, (id, new, after))


async def test_an_object_from_a_file_and_from_base64(desk: Desk, box: Any, tmp_path: Path) -> None:
    data = bytes(range(256)) * 8192
    (tmp_path / "file").write_bytes(data)
    where = {"region": "nyc3", "bucket": "box"}
    _, _, outputs = await desk.create("SpacesBucketObject", {**where, "key": "f", "source": str(tmp_path / "file")})
    assert outputs["etag"] == hashlib.md5(data).hexdigest()
    assert outputs["contentType"] == "binary/octet-stream"
    _, _, outputs = await desk.create("SpacesBucketObject", {**where, "key": "b", "contentBase64": "AAE="})
    assert outputs["etag"] == hashlib.md5(b"\0\1").hexdigest()
    with pytest.raises(ProviderError, match=r"Error opening Spaces bucket object source \(.*none\): No such file"):
        await desk.create("SpacesBucketObject", {**where, "key": "n", "source": str(tmp_path / "none")})


async def test_all_versions_of_an_object_go_with_it(desk: Desk) -> None:
    await desk.create("SpacesBucket", {"name": "box", "versioning": {"enabled": True}})
    made = await desk.create("SpacesBucketObject", OBJECT)
    assert made[2]["versionId"]
    after = await desk.update("SpacesBucketObject", made, {**OBJECT, "content": "2"})
    assert after["versionId"] != made[2]["versionId"]
    await desk.create("SpacesBucketObject", {**OBJECT, "key": f"{OBJECT['key']}2"})
    await desk.delete("SpacesBucketObject", (made[0], made[1], after))
    uid = next(iter(desk.cloud.account("me").table(SpacesBucket).values())).uid
    assert [v.key for v in desk.spaces.storage.index.versions(uid, "", ("", 0), 9)] == [f"{OBJECT['key']}2"]


async def test_a_bucket_with_something_in_it(desk: Desk) -> None:
    made = await desk.create("SpacesBucket", {"name": "box", "versioning": {"enabled": True}})
    for key in ("a", "b+c d", "ü"):
        await desk.create("SpacesBucketObject", {**OBJECT, "key": key})
    with pytest.raises(ProviderError, match=r"BucketNotEmpty: .*set forceDestroy"):
        await desk.delete("SpacesBucket", made)
    after = await desk.update(
        "SpacesBucket", made, {"name": "box", "versioning": {"enabled": True}, "forceDestroy": True}
    )
    await desk.delete("SpacesBucket", (made[0], made[1], after))
    assert desk.buckets == []


async def test_a_bucket_is_found_after_a_crash_only_if_it_is_new(desk: Desk) -> None:
    inputs = await desk.check("SpacesBucket", {"name": "box"})
    lookup = desk.provider.lookup
    assert await lookup("u", TOKENS["SpacesBucket"], inputs) is None
    await desk.create("SpacesBucket", {"name": "box"})
    assert await lookup("u", TOKENS["SpacesBucket"], inputs) == "box"
    await desk.create("SpacesBucketObject", OBJECT)
    with pytest.raises(ProviderError, match=r"which this stack has not made: import it \(`nyc3,box`\)"):
        await lookup("u", TOKENS["SpacesBucket"], inputs)


async def test_an_object_is_found_after_a_crash_by_its_content(desk: Desk, box: Any) -> None:
    inputs = await desk.check("SpacesBucketObject", OBJECT)
    assert await desk.provider.lookup("u", TOKENS["SpacesBucketObject"], inputs) is None
    await desk.create("SpacesBucketObject", OBJECT)
    assert await desk.provider.lookup("u", TOKENS["SpacesBucketObject"], inputs) == OBJECT["key"]
    other = {**inputs, "content": "other"}
    assert await desk.provider.lookup("u", TOKENS["SpacesBucketObject"], other) is None


@pytest.mark.parametrize("kind", ["timeout_after_effect", "error_after_effect", "rate_limited", "error"])
async def test_failures_in_passing_are_outlived(desk: Desk, kind: str) -> None:
    desk.faults.add({"kind": kind, "path": "/spaces/*", "count": 2})
    made = await desk.create("SpacesBucket", {"name": "box", "lifecycleRules": [EXPIRY]})
    assert desk.buckets == ["box"]
    assert made[2]["lifecycleRules"][0]["expiration"]["days"] == 3
    desk.faults.add({"kind": kind, "path": "/spaces/*", "method": "PUT", "count": 1})
    await desk.create("SpacesBucketObject", {**OBJECT})
    desk.faults.add({"kind": kind, "path": "/spaces/*", "method": "DELETE", "count": 1})
    await desk.delete("SpacesBucketObject", (OBJECT["key"], {}, {**OBJECT}))
    desk.faults.add({"kind": kind, "path": "/spaces/*", "method": "DELETE", "count": 1})
    await desk.delete("SpacesBucket", made)
    assert desk.buckets == []


async def test_a_bucket_that_is_half_configured_stays_in_state(desk: Desk) -> None:
    desk.faults.add({"kind": "error", "path": "/spaces/*", "method": "PUT", "skip": 1})
    with pytest.raises(PartialFailure) as caught:
        await desk.create("SpacesBucket", {"name": "box", "corsRules": [ORIGIN]})
    assert caught.value.id == "box"
    desk.faults.active.clear()
    await desk.provider.delete("u", TOKENS["SpacesBucket"], "box", {}, caught.value.outputs, 0)
    assert desk.buckets == []


async def test_a_bucket_of_somebody_else_is_refused(desk: Desk, box: Any) -> None:
    with pytest.raises(ProviderError, match="BucketAlreadyOwnedByYou"):
        await desk.create("SpacesBucket", {"name": "box"})
    bucket = desk.cloud.account("me").table(SpacesBucket).pop("box")
    bucket.account = "other"
    desk.cloud.account("other").table(SpacesBucket)["box"] = bucket
    with pytest.raises(ProviderError, match="BucketAlreadyExists"):
        await desk.create("SpacesBucket", {"name": "box"})
    assert await desk.provider.lookup("u", TOKENS["SpacesBucket"], box[1]) is None


async def test_an_import_by_a_wrong_id_says_the_right_form(desk: Desk, box: Any) -> None:
    for kind, form in (("SpacesBucket", "<region>,<name>"), ("SpacesBucketObject", "<region>,<bucket>,<key>")):
        with pytest.raises(ProviderError, match=f"requires the format: {form}"):
            await desk.provider.read("u", TOKENS[kind], "box", {}, {})
    read = await desk.provider.read("u", TOKENS["SpacesBucket"], "nyc3,box", {}, {})
    assert read.id == "box"
    assert read.inputs["name"] == "box"
    new = await desk.check("SpacesBucket", {"name": "box"}, read.inputs)
    assert not (await desk.diff("SpacesBucket", "box", read.outputs, read.inputs, new)).changes


async def test_without_keys_it_says_which(sandbox: SandboxApp, clock: Any) -> None:
    provider = DigitalOceanProvider(environment={}, budget=Unlimited(), clock=clock, transport=Dropping(sandbox))
    await provider.configure({})
    inputs = (await provider.check("urn::x", TOKENS["SpacesBucket"], {}, {"name": "box"}, b"")).inputs
    with pytest.raises(ProviderError, match="set SPACES_ACCESS_KEY_ID and SPACES_SECRET_ACCESS_KEY"):
        await provider.create("u", TOKENS["SpacesBucket"], inputs, 0, preview=False)
    given = {"spacesAccessId": "KEY", "spacesSecretKey": "secret", "spacesEndpoint": ENDPOINT}
    await provider.configure((await provider.check_config("u", {}, given)).inputs)
    assert (await provider.create("u", TOKENS["SpacesBucket"], inputs, 0, preview=False)).id == "box"
    await provider.configure({**given, "spacesSecretKey": "wrong"})
    with pytest.raises(ProviderError, match="403"):
        await provider.read("u", TOKENS["SpacesBucket"], "nyc3,box", {}, {})
    await provider.close()


@pytest.mark.parametrize(
    ("kind", "wrong", "property_", "words"),
    [
        ("SpacesBucket", {"name": "Box_1"}, "name", "3 to 63 lower-case"),
        ("SpacesBucket", {"region": "nyc2"}, "region", "nyc3"),
        ("SpacesBucket", {"acl": "public"}, "acl", "private, public-read"),
        ("SpacesBucket", {"lifecycleRules": [{"enabled": True}]}, "lifecycleRules[0]", "does nothing"),
        ("SpacesBucket", {"lifecycleRules": [{**EXPIRY, "expiration": {"date": "soon"}}]},
         "lifecycleRules[0].expiration.date", "2026-01-31"),
        ("SpacesBucketObject", {"source": "x"}, "content", "conflicts with source"),
        ("SpacesBucketObject", {"metadata": {"Big": "x"}}, "metadata.Big", "lowercase"),
        ("SpacesBucketObject", {"content": None, "contentBase64": "!"}, "contentBase64", "base64"),
        ("SpacesBucketPolicy", {"policy": "{"}, "policy", "invalid JSON"),
        ("SpacesBucketCorsConfiguration", {"corsRules": [{**ORIGIN, "allowedMethods": ["PATCH"]}]},
         "corsRules[0].allowedMethods[0]", "GET"),
    ],
)  # fmt: skip
async def test_wrong_inputs_are_refused_by_name(
    desk: Desk, kind: str, wrong: PropertyMap, property_: str, words: str
) -> None:
    program = {k: v for k, v in {**INPUTS.get(kind, {"name": "box"}), **wrong}.items() if v is not None}
    failures = (await desk.provider.check("u", TOKENS[kind], {}, program, b"")).failures
    assert [f.property for f in failures] == [property_]
    assert words in failures[0].reason


async def test_what_can_be_looked_up(desk: Desk, box: Any) -> None:
    await desk.create("SpacesBucket", {"name": "far", "region": "ams3"})
    for key in ("a", "b/1", "b/2"):
        await desk.create(
            "SpacesBucketObject", {**OBJECT, "key": key, "contentType": "text/plain", "metadata": {"k": "v"}}
        )
    assert await desk.look_up("getSpacesBucket", name="box", region="nyc3") == {
        "id": "box", "name": "box", "region": "nyc3", "urn": "do:space:box", "endpoint": "nyc3.digitaloceanspaces.com",
        "bucketDomainName": "box.nyc3.digitaloceanspaces.com",
    }  # fmt: skip
    found = await desk.look_up("getSpacesBuckets", sorts=[{"key": "region", "direction": "desc"}])
    assert [b["name"] for b in found["buckets"]] == ["box", "far"]
    only = await desk.look_up("getSpacesBuckets", filters=[{"key": "region", "values": ["ams3"]}])
    assert [b["bucketDomainName"] for b in only["buckets"]] == ["far.ams3.digitaloceanspaces.com"]
    one = await desk.look_up("getSpacesBucketObject", bucket="box", region="nyc3", key="a")
    assert (one["body"], one["contentLength"], one["metadata"]) == ("héllo", 6, {"k": "v"})
    part = await desk.look_up("getSpacesBucketObject", bucket="box", region="nyc3", key="a", range="bytes=0-0")
    assert (part["body"], part["contentLength"]) == ("h", 1)
    listed = await desk.look_up("getSpacesBucketObjects", bucket="box", region="nyc3", delimiter="/")
    assert (listed["keys"], listed["commonPrefixes"]) == (["a"], ["b/"])
    two = await desk.look_up("getSpacesBucketObjects", bucket="box", region="nyc3", maxKeys=2)
    assert two["keys"] == ["a", "b/1"]
    for name, args, words in (
        ("getSpacesBucket", {"name": "none", "region": "nyc3"}, r"Spaces Bucket \(none\) not found"),
        ("getSpacesBucket", {"name": "box"}, "missing required argument 'region'"),
        ("getSpacesBucketObject", {"bucket": "box", "region": "nyc3", "key": "z"}, "Failed getting S3 object"),
        ("getSpacesBucketObjects", {"bucket": "none", "region": "nyc3"}, "NoSuchBucket"),
    ):
        with pytest.raises(ProviderError, match=words):
            await desk.look_up(name, **args)


async def test_results_have_just_what_the_sdk_reads(desk: Desk, box: Any) -> None:
    """The SDK's own source says which names it reads from the answer."""
    await desk.create("SpacesBucketObject", {**OBJECT, "key": "k"})
    where = {"bucket": "box", "region": "nyc3"}
    for name, args in {
        "getSpacesBucket": {"name": "box", "region": "nyc3"},
        "getSpacesBuckets": {},
        "getSpacesBucketObject": {**where, "key": "k"},
        "getSpacesBucketObjects": where,
    }.items():
        found = await desk.look_up(name, **args)
        source = (SDK / f"{snake(name)}.py").read_text()
        assert {snake(key) for key in found} == set(re.findall(r"pulumi\.get\(__ret__, '(\w+)'\)", source)), name
        assert found["id"]


def snake(name: str) -> str:
    return re.sub(r"([A-Z])", lambda m: f"_{m[1].lower()}", name)
