"""Misfortunes of Spaces, and what outlives the process."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from botocore.exceptions import BotoCoreError

from engine.sandbox.server import Sandbox, SandboxSettings, running
from engine.sandbox.spaces.access import KeyPair

HERE = {"Bucket": "box", "Key": "k"}


async def fault(sandbox: Sandbox, kind: str, **more: Any) -> None:
    async with httpx.AsyncClient(base_url=sandbox.url) as client:
        body = {"kind": kind, "path": "/spaces/nyc3/box/*", "count": 1, **more}
        assert (await client.post("/_sandbox/faults", json=body)).status_code == 201


async def test_refusals_on_purpose(s3: Any, bucket: str, sandbox: Sandbox) -> None:
    await fault(sandbox, "rate_limited")
    assert await s3.refused("put_object", **HERE, Body=b"x") == ("SlowDown", 503)
    await fault(sandbox, "error", status=500)
    assert await s3.refused("put_object", **HERE, Body=b"x") == ("InternalError", 500)
    assert await s3.refused("get_object", **HERE) == ("NoSuchKey", 404)
    await fault(sandbox, "error_after_effect", name="k")
    assert await s3.refused("put_object", **HERE, Body=b"x") == ("ServiceUnavailable", 503)
    assert await s3.body(**HERE) == b"x"


@pytest.mark.parametrize(("kind", "happened"), [("timeout_before_effect", False), ("timeout_after_effect", True)])
async def test_connections_that_break(s3: Any, bucket: str, sandbox: Sandbox, kind: str, happened: bool) -> None:
    await fault(sandbox, kind, seconds=0.01, method="PUT")
    with pytest.raises(BotoCoreError):
        await s3.put_object(**HERE, Body=b"x" * 300_000)
    assert ((await s3.list_objects_v2(Bucket=bucket))["KeyCount"] == 1) is happened
    assert [r.status for r in sandbox.cloud.journal.requests if r.fault == kind] == [0]


async def test_things_that_vanish(s3: Any, bucket: str, sandbox: Sandbox) -> None:
    await s3.put_object(**HERE, Body=b"x")
    await fault(sandbox, "vanish", method="GET")
    assert await s3.refused("get_object", **HERE) == ("NoSuchKey", 404)
    await fault(sandbox, "vanish", method="PUT")
    await s3.put_object(**HERE, Body=b"x")
    assert await s3.refused("get_object", **HERE) == ("NoSuchKey", 404)
    await s3.put_object(**HERE, Body=b"x")
    async with httpx.AsyncClient(base_url=sandbox.url) as client:
        await client.post("/_sandbox/resources/box/vanish")
        assert await s3.refused("get_object", **HERE) == ("NoSuchBucket", 404)
        await s3.create_bucket(Bucket="box")
        assert (await s3.list_objects_v2(Bucket="box"))["KeyCount"] == 0
        await client.post("/_sandbox/reset")
    assert (await s3.list_buckets())["Buckets"] == []
    kinds = [e.kind for e in sandbox.cloud.journal.entries]
    assert kinds.count("spaces_object.created") == 3
    assert kinds.count("spaces_object.vanished") == 2
    assert kinds.count("spaces_bucket.vanished") == 2


async def test_a_bucket_that_is_placed_and_then_is_not(s3: Any, sandbox: Sandbox) -> None:
    await fault(sandbox, "placement_failure", path="/spaces/nyc3/box", method="PUT", seconds=0)
    await s3.create_bucket(Bucket="box")
    assert await s3.refused("head_bucket", Bucket="box") == ("404", 404)


async def test_an_upload_that_breaks_off_leaves_nothing(
    connect: Any, bucket: str, sandbox: Sandbox, tmp_path: Path
) -> None:
    url = connect(signature_version="s3v4").client.generate_presigned_url("put_object", HERE, ExpiresIn=60)
    path = url.removeprefix(sandbox.url)
    _, writer = await asyncio.open_connection("127.0.0.1", sandbox.port)
    head = f"PUT {path} HTTP/1.1\r\nHost: 127.0.0.1:{sandbox.port}\r\nContent-Length: 3000000\r\n\r\n"
    writer.write(head.encode() + b"x" * 2_000_000)
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    async with asyncio.timeout(60):
        while sandbox.cloud.journal.requests[-1].status != 400:  # noqa: ASYNC110 - the journal has no event to wait for
            await asyncio.sleep(0.01)
    assert not list((tmp_path / "spaces/blobs").glob("*/*"))


async def test_everything_is_there_after_a_restart(tmp_path: Path, client_of: Any) -> None:
    settings = SandboxSettings(
        data_dir=tmp_path / "data", machines=False, state_file=tmp_path / "state", spaces_dir=tmp_path / "objects"
    )
    headers = {"authorization": "Bearer t"}
    body = {"name": "k", "grants": [{"bucket": "", "permission": "fullaccess"}]}
    async with running(settings) as sandbox:
        async with httpx.AsyncClient(base_url=sandbox.url, headers=headers) as client:
            key = (await client.post("/v2/spaces/keys", json=body)).json()["key"]
        pair = key["access_key"], key["secret_key"]
        s3 = client_of(sandbox, pair)
        await s3.create_bucket(Bucket="box", ACL="public-read")
        await s3.put_bucket_versioning(Bucket="box", VersioningConfiguration={"Status": "Enabled"})
        await s3.put_object(**HERE, Body=b"1")
        await s3.put_object(**HERE, Body=b"2")
        upload = await s3.create_multipart_upload(Bucket="box", Key="u")
        part = await s3.upload_part(Bucket="box", Key="u", UploadId=upload["UploadId"], PartNumber=1, Body=b"part")
    (tmp_path / "objects/blobs/zz").mkdir()
    (tmp_path / "objects/blobs/zz/orphan").write_bytes(b"")
    async with running(settings) as sandbox:
        s3 = client_of(sandbox, pair)
        assert await s3.body(**HERE) == b"2"
        assert len((await s3.list_object_versions(Bucket="box"))["Versions"]) == 2
        parts = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
        done = {"Bucket": "box", "Key": "u", "UploadId": upload["UploadId"], "MultipartUpload": parts}
        await s3.complete_multipart_upload(**done)
        assert await s3.body(Bucket="box", Key="u") == b"part"
    assert not (tmp_path / "objects/blobs/zz/orphan").exists()


async def test_without_a_state_objects_go_with_their_buckets(tmp_path: Path, client_of: Any) -> None:
    settings = SandboxSettings(data_dir=tmp_path, machines=False, spaces_key=KeyPair("A", "B", "me"))
    for _ in range(2):
        async with running(settings) as sandbox:
            s3 = client_of(sandbox, ("A", "B"))
            await s3.create_bucket(Bucket="box")
            assert (await s3.list_objects_v2(Bucket="box"))["KeyCount"] == 0
            await s3.put_object(**HERE, Body=b"x")
            assert len(list((tmp_path / "spaces/blobs").glob("*/*"))) == 1


async def test_many_at_once(s3: Any, bucket: str) -> None:
    bodies = [bytes([i]) * (1 << 20) * 2 for i in range(8)]
    await asyncio.gather(*(s3.put_object(Bucket=bucket, Key=f"k{i}", Body=b) for i, b in enumerate(bodies)))
    assert await asyncio.gather(*(s3.body(Bucket=bucket, Key=f"k{i}") for i in range(8))) == bodies
    once = await asyncio.gather(
        *(s3.put_object(**HERE, Body=b, IfNoneMatch="*") for b in bodies), return_exceptions=True
    )
    assert sum(not isinstance(one, Exception) for one in once) == 1
