"""Buckets through boto3: their life, their listings and what is configured on them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from engine.sandbox.server import Sandbox

KEYS = ["a", "b/1", "b/2", "b/c/3", "d", "e/4", "ü", "\U0001f600"]
CORS = {"AllowedMethods": ["GET", "PUT"], "AllowedOrigins": ["https://*.example.com"], "AllowedHeaders": ["x-*"],
        "ExposeHeaders": ["ETag"], "MaxAgeSeconds": 60, "ID": "one"}  # fmt: skip


async def test_a_bucket_lives_and_dies(s3: Any, connect: Any) -> None:
    made = await s3.create_bucket(Bucket="box", CreateBucketConfiguration={"LocationConstraint": "nyc3"})
    assert made["Location"] == "/box"
    assert (await s3.get_bucket_location(Bucket="box"))["LocationConstraint"] == "nyc3"
    assert [b["Name"] for b in (await s3.list_buckets())["Buckets"]] == ["box"]
    assert (await connect(region="ams3").list_buckets())["Buckets"] == []
    assert await connect(region="ams3").refused("head_bucket", Bucket="box") == ("404", 404)
    assert await s3.refused("create_bucket", Bucket="box") == ("BucketAlreadyOwnedByYou", 409)
    await s3.put_object(Bucket="box", Key="k", Body=b"")
    assert await s3.refused("delete_bucket", Bucket="box") == ("BucketNotEmpty", 409)
    await s3.delete_object(Bucket="box", Key="k")
    await s3.delete_bucket(Bucket="box")
    assert await s3.refused("delete_bucket", Bucket="box") == ("NoSuchBucket", 404)
    assert await s3.refused("list_objects_v2", Bucket="box") == ("NoSuchBucket", 404)


@pytest.mark.parametrize("name", ["ab", "Box", "-box", "bo..x", "192.168.1.1", "x" * 64, "b_x"])
async def test_names_that_may_not_be(s3: Any, name: str) -> None:
    assert await s3.refused("create_bucket", Bucket=name) == ("InvalidBucketName", 400)
    assert (await s3.list_buckets())["Buckets"] == []


async def test_another_place_than_the_endpoints(s3: Any) -> None:
    elsewhere = {"LocationConstraint": "ams3"}
    refused = await s3.refused("create_bucket", Bucket="box", CreateBucketConfiguration=elsewhere)
    assert refused == ("InvalidLocationConstraint", 400)


@pytest.fixture
async def full(s3: Any, bucket: str) -> str:
    for key in KEYS:
        await s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    return bucket


async def test_listings_are_sorted_filtered_and_folded(s3: Any, full: str) -> None:
    whole = await s3.list_objects_v2(Bucket=full)
    assert [o["Key"] for o in whole["Contents"]] == KEYS
    assert whole["KeyCount"] == len(KEYS)
    folded = await s3.list_objects_v2(Bucket=full, Delimiter="/")
    assert [o["Key"] for o in folded["Contents"]] == ["a", "d", "ü", "\U0001f600"]
    assert [p["Prefix"] for p in folded["CommonPrefixes"]] == ["b/", "e/"]
    inner = await s3.list_objects_v2(Bucket=full, Delimiter="/", Prefix="b/")
    assert [o["Key"] for o in inner["Contents"]] == ["b/1", "b/2"]
    assert [p["Prefix"] for p in inner["CommonPrefixes"]] == ["b/c/"]
    after = await s3.list_objects_v2(Bucket=full, StartAfter="b/2", FetchOwner=True)
    assert [o["Key"] for o in after["Contents"]] == KEYS[3:]
    assert after["Contents"][0]["Owner"]["DisplayName"] == "spaces"


@pytest.mark.parametrize("operation", ["list_objects", "list_objects_v2", "list_object_versions"])
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize("delimiter", ["", "/"])
async def test_pages_together_are_the_whole(s3: Any, full: str, operation: str, size: int, delimiter: str) -> None:
    paginator = s3.client.get_paginator(operation)
    pages = paginator.paginate(Bucket=full, Delimiter=delimiter, PaginationConfig={"PageSize": size})
    keys, prefixes = [], []
    for page in await asyncio.to_thread(list, pages):
        keys += [o["Key"] for o in page.get("Contents", page.get("Versions", []))]
        prefixes += [p["Prefix"] for p in page.get("CommonPrefixes", [])]
        assert len(page.get("Contents", page.get("Versions", []))) + len(page.get("CommonPrefixes", [])) <= size
    assert keys == (["a", "d", "ü", "\U0001f600"] if delimiter else KEYS)
    assert prefixes == (["b/", "e/"] if delimiter else [])


async def test_versions_are_kept_and_given_back(s3: Any, bucket: str) -> None:
    here = {"Bucket": bucket, "Key": "k"}
    await s3.put_object(**here, Body=b"0")
    assert "Status" not in await s3.get_bucket_versioning(Bucket=bucket)
    await s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    ids = [(await s3.put_object(**here, Body=b))["VersionId"] for b in (b"1", b"2")]
    marker = await s3.delete_object(**here)
    assert marker["DeleteMarker"] is True
    assert await s3.refused("get_object", **here) == ("NoSuchKey", 404)
    assert await s3.refused("get_object", **here, VersionId=marker["VersionId"]) == ("MethodNotAllowed", 405)
    assert await s3.body(**here, VersionId=ids[0]) == b"1"
    assert await s3.body(**here, VersionId="null") == b"0"
    listed = await s3.list_object_versions(Bucket=bucket)
    assert [v["VersionId"] for v in listed["Versions"]] == [ids[1], ids[0], "null"]
    assert [(m["VersionId"], m["IsLatest"]) for m in listed["DeleteMarkers"]] == [(marker["VersionId"], True)]
    assert (await s3.list_objects_v2(Bucket=bucket))["KeyCount"] == 0
    await s3.delete_object(**here, VersionId=marker["VersionId"])
    assert await s3.body(**here) == b"2"
    await s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    await s3.put_object(**here, Body=b"3")
    assert await s3.refused("get_object", **here, VersionId="none") == ("NoSuchVersion", 404)
    left = (await s3.list_object_versions(Bucket=bucket))["Versions"]
    assert [v["VersionId"] for v in left] == ["null", ids[1], ids[0]]
    assert await s3.refused("delete_bucket", Bucket=bucket) == ("BucketNotEmpty", 409)
    await s3.delete_objects(
        Bucket=bucket, Delete={"Objects": [{"Key": "k", "VersionId": v["VersionId"]} for v in left], "Quiet": True}
    )
    await s3.delete_bucket(Bucket=bucket)


async def test_acls(s3: Any, public: Any, bucket: str) -> None:
    await s3.put_object(Bucket=bucket, Key="shown", Body=b"x", ACL="public-read")
    await s3.put_object(Bucket=bucket, Key="hidden", Body=b"x")
    assert await public.body(Bucket=bucket, Key="shown") == b"x"
    assert await public.refused("get_object", Bucket=bucket, Key="hidden") == ("AccessDenied", 403)
    assert await public.refused("get_object", Bucket=bucket, Key="absent") == ("AccessDenied", 403)
    assert await public.refused("list_objects_v2", Bucket=bucket) == ("AccessDenied", 403)
    assert await public.refused("put_object", Bucket=bucket, Key="k", Body=b"") == ("AccessDenied", 403)
    await s3.put_bucket_acl(Bucket=bucket, ACL="public-read")
    await s3.put_object_acl(Bucket=bucket, Key="shown", ACL="private")
    assert (await public.list_objects_v2(Bucket=bucket))["KeyCount"] == 2
    assert await public.refused("get_object", Bucket=bucket, Key="shown") == ("AccessDenied", 403)
    assert await public.refused("get_object", Bucket=bucket, Key="absent") == ("NoSuchKey", 404)
    grants = (await s3.get_bucket_acl(Bucket=bucket))["Grants"]
    assert [(g["Permission"], g["Grantee"]["Type"]) for g in grants] == [
        ("FULL_CONTROL", "CanonicalUser"),
        ("READ", "Group"),
    ]
    kept = await s3.get_object_acl(Bucket=bucket, Key="shown")
    await s3.put_bucket_acl(Bucket=bucket, AccessControlPolicy={"Owner": kept["Owner"], "Grants": kept["Grants"]})
    assert len((await s3.get_bucket_acl(Bucket=bucket))["Grants"]) == 1


async def test_cors(s3: Any, bucket: str, sandbox: Sandbox) -> None:
    assert await s3.refused("get_bucket_cors", Bucket=bucket) == ("NoSuchCORSConfiguration", 404)
    await s3.put_bucket_cors(Bucket=bucket, CORSConfiguration={"CORSRules": [CORS]})
    assert (await s3.get_bucket_cors(Bucket=bucket))["CORSRules"] == [CORS]
    await s3.put_object(Bucket=bucket, Key="k", Body=b"x", ACL="public-read")
    asks = {"origin": "https://a.example.com", "access-control-request-method": "PUT"}
    async with httpx.AsyncClient(base_url=f"{sandbox.url}/spaces/nyc3/{bucket}") as client:
        yes = await client.options("/k", headers={**asks, "access-control-request-headers": "x-amz-date"})
        assert (yes.status_code, yes.headers["access-control-allow-origin"]) == (200, "https://a.example.com")
        assert yes.headers["access-control-allow-headers"] == "x-amz-date"
        assert (await client.options("/k", headers={**asks, "origin": "https://other.com"})).status_code == 403
        got = await client.get("/k", headers={"origin": "https://a.example.com"})
        assert got.headers["access-control-expose-headers"] == "ETag"
        assert "access-control-allow-origin" not in (await client.get("/k", headers={"origin": "http://o"})).headers
    await s3.delete_bucket_cors(Bucket=bucket)
    assert await s3.refused("get_bucket_cors", Bucket=bucket) == ("NoSuchCORSConfiguration", 404)
    many = {"CORSRules": [{"AllowedMethods": ["PATCH"], "AllowedOrigins": ["*"]}]}
    assert await s3.refused("put_bucket_cors", Bucket=bucket, CORSConfiguration=many) == ("InvalidRequest", 400)


async def test_lifecycles(s3: Any, bucket: str) -> None:
    assert await s3.refused("get_bucket_lifecycle_configuration", Bucket=bucket) == (
        "NoSuchLifecycleConfiguration",
        404,
    )
    rules = [
        {"ID": "a", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 3}},
        {"ID": "b", "Status": "Disabled", "Prefix": "x", "NoncurrentVersionExpiration": {"NoncurrentDays": 2}},
        {"ID": "c", "Status": "Enabled", "Filter": {"Prefix": ""},
         "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1},
         "Expiration": {"ExpiredObjectDeleteMarker": True}},
    ]  # fmt: skip
    await s3.put_bucket_lifecycle_configuration(Bucket=bucket, LifecycleConfiguration={"Rules": rules})
    assert (await s3.get_bucket_lifecycle_configuration(Bucket=bucket))["Rules"] == rules
    for wrong, code in (
        ({"Status": "Enabled", "Filter": {"Prefix": ""}}, "InvalidRequest"),
        ({"Status": "Enabled", "Prefix": "", "Expiration": {"Days": 0}}, "InvalidArgument"),
        (
            {"Status": "Enabled", "Prefix": "", "Transitions": [{"Days": 1, "StorageClass": "GLACIER"}]},
            "NotImplemented",
        ),
    ):
        refused = await s3.refused(
            "put_bucket_lifecycle_configuration", Bucket=bucket, LifecycleConfiguration={"Rules": [wrong]}
        )
        assert refused[0] == code
    await s3.delete_bucket_lifecycle(Bucket=bucket)
    assert (await s3.refused("get_bucket_lifecycle_configuration", Bucket=bucket))[1] == 404


def policy(effect: str, action: str, **more: Any) -> str:
    statement = {"Effect": effect, "Principal": "*", "Action": action, "Resource": "arn:aws:s3:::box/public/*", **more}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


async def test_policies_allow_and_deny(s3: Any, public: Any, bucket: str) -> None:
    for key in ("public/k", "k"):
        await s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    assert await s3.refused("get_bucket_policy", Bucket=bucket) == ("NoSuchBucketPolicy", 404)
    text = policy("Allow", "s3:GetObject")
    await s3.put_bucket_policy(Bucket=bucket, Policy=text)
    assert (await s3.get_bucket_policy(Bucket=bucket))["Policy"] == text
    assert await public.body(Bucket=bucket, Key="public/k") == b"x"
    assert await public.refused("get_object", Bucket=bucket, Key="k") == ("AccessDenied", 403)
    elsewhere = {"NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"}}
    await s3.put_bucket_policy(Bucket=bucket, Policy=policy("Deny", "s3:Get*", Condition=elsewhere))
    assert await s3.refused("get_object", Bucket=bucket, Key="public/k") == ("AccessDenied", 403)
    assert await s3.body(Bucket=bucket, Key="k") == b"x"
    await s3.delete_bucket_policy(Bucket=bucket)
    assert await s3.body(Bucket=bucket, Key="public/k") == b"x"


@pytest.mark.parametrize(
    "text",
    [
        "{", "{}", '{"Version": "2012-10-17", "Statement": []}', policy("Perhaps", "s3:*"),
        policy("Allow", "s3:*", Resource="arn:aws:s3:::other/*"), policy("Allow", "s3:*", Principal=""),
        policy("Allow", "s3:*", Condition={"Bool": {"aws:SecureTransport": "true"}}),
        policy("Allow", "s3:*", Condition={"IpAddress": {"aws:SourceIp": "x"}}),
    ],
)  # fmt: skip
async def test_policies_that_cannot_be_carried_out(s3: Any, bucket: str, text: str) -> None:
    assert await s3.refused("put_bucket_policy", Bucket=bucket, Policy=text) == ("MalformedPolicy", 400)


async def test_what_is_not_here_says_so(s3: Any, bucket: str) -> None:
    assert await s3.refused("get_bucket_tagging", Bucket=bucket) == ("NotImplemented", 501)
    assert await s3.refused("get_bucket_website", Bucket=bucket) == ("NotImplemented", 501)
