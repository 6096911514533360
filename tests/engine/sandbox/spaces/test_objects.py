"""Objects through boto3: stored, read back, in pieces, under conditions, copied, deleted."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import pytest


async def test_an_object_comes_back_as_it_was_put(s3: Any, bucket: str) -> None:
    put = await s3.put_object(
        Bucket=bucket, Key="a/b c+ü.txt", Body=b"hello", ContentType="text/plain", CacheControl="max-age=1",
        ContentDisposition="inline", ContentEncoding="identity", ContentLanguage="en", Metadata={"who": "me"},
    )  # fmt: skip
    assert put["ETag"] == f'"{hashlib.md5(b"hello").hexdigest()}"'
    got = await s3.get_object(Bucket=bucket, Key="a/b c+ü.txt", ChecksumMode="ENABLED")
    assert (got["ContentLength"], got["ContentType"], got["Metadata"]) == (5, "text/plain", {"who": "me"})
    assert (got["CacheControl"], got["ContentDisposition"], got["ContentLanguage"]) == ("max-age=1", "inline", "en")
    assert got["ChecksumCRC32"] == put["ChecksumCRC32"]
    got["Body"].close()
    assert await s3.body(Bucket=bucket, Key="a/b c+ü.txt") == b"hello"
    head = await s3.head_object(Bucket=bucket, Key="a/b c+ü.txt")
    assert (head["ContentLength"], head["ETag"]) == (5, put["ETag"])


async def test_an_empty_object_and_one_that_is_replaced(s3: Any, bucket: str) -> None:
    await s3.put_object(Bucket=bucket, Key="k", Body=b"")
    assert await s3.body(Bucket=bucket, Key="k") == b""
    await s3.put_object(Bucket=bucket, Key="k", Body=b"2")
    assert await s3.body(Bucket=bucket, Key="k") == b"2"
    assert len((await s3.list_object_versions(Bucket=bucket))["Versions"]) == 1


@pytest.mark.parametrize(
    ("range_", "found"),
    [("bytes=0-0", b"0"), ("bytes=2-4", b"234"), ("bytes=7-", b"789"), ("bytes=-3", b"789"), ("bytes=8-99", b"89")],
)
async def test_ranges(s3: Any, bucket: str, range_: str, found: bytes) -> None:
    await s3.put_object(Bucket=bucket, Key="k", Body=b"0123456789")
    got = await s3.get_object(Bucket=bucket, Key="k", Range=range_)
    assert got["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert got["ContentRange"].endswith("/10")
    got["Body"].close()
    assert await s3.body(Bucket=bucket, Key="k", Range=range_) == found


async def test_a_range_behind_the_end(s3: Any, bucket: str) -> None:
    await s3.put_object(Bucket=bucket, Key="k", Body=b"0123456789")
    assert await s3.refused("get_object", Bucket=bucket, Key="k", Range="bytes=10-") == ("InvalidRange", 416)


async def test_conditional_reads(s3: Any, bucket: str) -> None:
    etag = (await s3.put_object(Bucket=bucket, Key="k", Body=b"x"))["ETag"]
    here = {"Bucket": bucket, "Key": "k"}
    assert await s3.body(**here, IfMatch=etag) == b"x"
    assert await s3.refused("get_object", **here, IfMatch='"other"') == ("PreconditionFailed", 412)
    assert await s3.refused("get_object", **here, IfNoneMatch=etag) == ("304", 304)
    assert await s3.refused("get_object", **here, IfModifiedSince="2100-01-01") == ("304", 304)
    assert await s3.refused("get_object", **here, IfUnmodifiedSince="2000-01-01") == ("PreconditionFailed", 412)
    assert await s3.body(**here, IfModifiedSince="2000-01-01", IfUnmodifiedSince="2100-01-01") == b"x"


async def test_conditional_writes(s3: Any, bucket: str) -> None:
    here = {"Bucket": bucket, "Key": "k"}
    etag = (await s3.put_object(**here, Body=b"1", IfNoneMatch="*"))["ETag"]
    assert await s3.refused("put_object", **here, Body=b"2", IfNoneMatch="*") == ("PreconditionFailed", 412)
    assert await s3.refused("put_object", **here, Body=b"2", IfMatch='"x"') == ("PreconditionFailed", 412)
    assert await s3.refused("put_object", Bucket=bucket, Key="n", Body=b"2", IfMatch=etag) == ("NoSuchKey", 404)
    await s3.put_object(**here, Body=b"3", IfMatch=etag)
    assert await s3.body(**here) == b"3"


async def test_copies(s3: Any, bucket: str) -> None:
    await s3.put_object(Bucket=bucket, Key="a b", Body=b"x", ContentType="text/plain", Metadata={"n": "1"})
    await s3.create_bucket(Bucket="other")
    source = {"Bucket": bucket, "Key": "a b"}
    await s3.copy_object(Bucket="other", Key="c", CopySource=source)
    await s3.copy_object(Bucket=bucket, Key="d", CopySource=source, MetadataDirective="REPLACE", Metadata={"n": "2"})
    await s3.delete_object(**source)
    assert await s3.body(Bucket="other", Key="c") == b"x"
    assert (await s3.head_object(Bucket="other", Key="c"))["Metadata"] == {"n": "1"}
    assert (await s3.head_object(Bucket=bucket, Key="d"))["Metadata"] == {"n": "2"}
    assert await s3.refused("copy_object", Bucket=bucket, Key="e", CopySource=source) == ("NoSuchKey", 404)
    again = {"Bucket": bucket, "Key": "d"}
    assert await s3.refused("copy_object", **again, CopySource=again) == ("InvalidRequest", 400)


async def test_deletes_of_one_and_of_many(s3: Any, bucket: str) -> None:
    for key in "abc":
        await s3.put_object(Bucket=bucket, Key=key, Body=b"x")
    await s3.delete_object(Bucket=bucket, Key="a")
    await s3.delete_object(Bucket=bucket, Key="a")
    assert await s3.refused("get_object", Bucket=bucket, Key="a") == ("NoSuchKey", 404)
    assert await s3.refused("head_object", Bucket=bucket, Key="a") == ("404", 404)
    keys = {"Objects": [{"Key": "b"}, {"Key": "c"}, {"Key": "none"}]}
    assert len((await s3.delete_objects(Bucket=bucket, Delete=keys))["Deleted"]) == 3
    assert (await s3.list_objects_v2(Bucket=bucket))["KeyCount"] == 0


async def test_a_large_file_goes_up_in_parts_and_comes_back(s3: Any, bucket: str, tmp_path: Path) -> None:
    data = hashlib.shake_256(b"seed").digest(20 << 20)
    await s3.upload_fileobj(io.BytesIO(data), bucket, "big")
    head = await s3.head_object(Bucket=bucket, Key="big")
    assert head["ContentLength"] == len(data)
    assert head["ETag"].endswith('-3"')
    await s3.download_file(bucket, "big", str(tmp_path / "big"))
    assert (tmp_path / "big").read_bytes() == data
    middle = await s3.body(Bucket=bucket, Key="big", Range=f"bytes={(8 << 20) - 2}-{(8 << 20) + 1}")
    assert middle == data[(8 << 20) - 2 : (8 << 20) + 2]
    assert not (await s3.list_multipart_uploads(Bucket=bucket)).get("Uploads")


async def test_bytes_of_what_is_gone_are_gone_from_disk(s3: Any, bucket: str, tmp_path: Path) -> None:
    blobs = tmp_path / "spaces" / "blobs"
    await s3.put_object(Bucket=bucket, Key="k", Body=b"1")
    await s3.put_object(Bucket=bucket, Key="k", Body=b"2")
    assert len(list(blobs.glob("*/*"))) == 1
    await s3.delete_object(Bucket=bucket, Key="k")
    assert not list(blobs.glob("*/*"))


@pytest.mark.parametrize(
    ("arguments", "refusal"),
    [
        ({"ContentMD5": "AAAAAAAAAAAAAAAAAAAAAA=="}, ("BadDigest", 400)),
        ({"ContentMD5": "x"}, ("InvalidDigest", 400)),
        ({"ChecksumSHA256": "AAAA"}, ("BadDigest", 400)),
        ({"ChecksumSHA1": "AAAA"}, ("BadDigest", 400)),
        ({"ChecksumCRC32C": "AAAAAA=="}, ("BadDigest", 400)),
        ({"ChecksumCRC64NVME": "AAAAAAAAAAA="}, ("BadDigest", 400)),
        ({"ACL": "public-read-write"}, ("InvalidArgument", 400)),
        ({"StorageClass": "GLACIER"}, ("NotImplemented", 501)),
        ({"Tagging": "a=b"}, ("NotImplemented", 501)),
        ({"Metadata": {"a": "x" * 2048}}, ("MetadataTooLarge", 400)),
        ({"Key": "k" * 1025}, ("KeyTooLongError", 400)),
    ],
)
async def test_refused_uploads_leave_nothing(
    s3: Any, bucket: str, tmp_path: Path, arguments: dict[str, Any], refusal: tuple[str, int]
) -> None:
    assert await s3.refused("put_object", **{"Bucket": bucket, "Key": "k", "Body": b"x", **arguments}) == refusal
    assert (await s3.list_objects_v2(Bucket=bucket))["KeyCount"] == 0
    assert not list((tmp_path / "spaces" / "blobs").glob("*/*"))


async def test_checksums_that_match(s3: Any, bucket: str) -> None:
    for algorithm in ("CRC32", "SHA1", "SHA256"):
        put = await s3.put_object(Bucket=bucket, Key=algorithm, Body=b"hello", ChecksumAlgorithm=algorithm)
        got = await s3.get_object(Bucket=bucket, Key=algorithm, ChecksumMode="ENABLED")
        got["Body"].close()
        assert put[f"Checksum{algorithm}"] == got[f"Checksum{algorithm}"]
    # The values of the well-known check text "123456789".
    await s3.put_object(Bucket=bucket, Key="c", Body=b"123456789", ChecksumCRC32C="4waSgw==")
    await s3.put_object(Bucket=bucket, Key="n", Body=b"123456789", ChecksumCRC64NVME="rosUhgp5mIg=")
