"""Multipart uploads, part by part."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

MIB = 1 << 20


class Upload:
    """An upload under way."""

    def __init__(self, s3: Any, bucket: str, id: str) -> None:
        self.s3 = s3
        self.here = {"Bucket": bucket, "Key": "k", "UploadId": id}

    async def part(self, number: int, data: bytes) -> dict[str, Any]:
        put = await self.s3.upload_part(**self.here, PartNumber=number, Body=data)
        return {"PartNumber": number, "ETag": put["ETag"]}

    def parts(self, *parts: dict[str, Any]) -> dict[str, Any]:
        return {**self.here, "MultipartUpload": {"Parts": list(parts)}}


@pytest.fixture
async def upload(s3: Any, bucket: str) -> Upload:
    made = await s3.create_multipart_upload(Bucket=bucket, Key="k", ContentType="text/plain", Metadata={"a": "b"})
    return Upload(s3, bucket, made["UploadId"])


async def test_parts_in_any_order_become_an_object(s3: Any, upload: Upload, tmp_path: Path) -> None:
    second = await upload.part(2, b"tail")
    await upload.part(1, b"x")
    first = await upload.part(1, b"a" * 5 * MIB)
    await upload.part(3, b"not wanted")
    listed = await s3.list_parts(**upload.here)
    assert [(p["PartNumber"], p["Size"]) for p in listed["Parts"]] == [(1, 5 * MIB), (2, 4), (3, 10)]
    page = await s3.list_parts(**upload.here, MaxParts=1, PartNumberMarker=1)
    assert ([p["PartNumber"] for p in page["Parts"]], page["IsTruncated"]) == ([2], True)
    done = await s3.complete_multipart_upload(**upload.parts(first, second))
    sums = b"".join(hashlib.md5(d).digest() for d in (b"a" * 5 * MIB, b"tail"))
    assert done["ETag"] == f'"{hashlib.md5(sums).hexdigest()}-2"'
    got = await s3.get_object(Bucket="box", Key="k")
    got["Body"].close()
    assert (got["ContentType"], got["Metadata"], got["ContentLength"]) == ("text/plain", {"a": "b"}, 5 * MIB + 4)
    assert (await s3.body(Bucket="box", Key="k", Range="bytes=-6")) == b"aatail"
    assert len(list((tmp_path / "spaces/blobs").glob("*/*"))) == 2
    assert await s3.refused("list_parts", **upload.here) == ("NoSuchUpload", 404)


async def test_what_cannot_be_completed(s3: Any, upload: Upload) -> None:
    small, last = await upload.part(1, b"small"), await upload.part(2, b"last")
    wrong = {"PartNumber": 1, "ETag": '"00"'}
    for parts, code in (
        ((last, small), "InvalidPartOrder"),
        ((small, last), "EntityTooSmall"),
        ((wrong,), "InvalidPart"),
        (({**small, "PartNumber": 9},), "InvalidPart"),
        ((), "MalformedXML"),
    ):
        assert await s3.refused("complete_multipart_upload", **upload.parts(*parts)) == (code, 400)
    assert await s3.refused("upload_part", **upload.here, PartNumber=10001, Body=b"") == ("InvalidArgument", 400)
    await s3.complete_multipart_upload(**upload.parts(small))


async def test_an_aborted_upload_leaves_nothing(s3: Any, upload: Upload, tmp_path: Path) -> None:
    await upload.part(1, b"x")
    found = await s3.list_multipart_uploads(Bucket="box")
    assert [(u["Key"], u["UploadId"]) for u in found["Uploads"]] == [("k", upload.here["UploadId"])]
    await s3.abort_multipart_upload(**upload.here)
    assert not (await s3.list_multipart_uploads(Bucket="box")).get("Uploads")
    assert not list((tmp_path / "spaces/blobs").glob("*/*"))
    assert await s3.refused("upload_part", **upload.here, PartNumber=1, Body=b"") == ("NoSuchUpload", 404)


async def test_parts_are_copied_from_objects(s3: Any, upload: Upload) -> None:
    await s3.put_object(Bucket="box", Key="source", Body=b"b" * 5 * MIB + b"0123456789")
    source = {"Bucket": "box", "Key": "source"}
    parts = []
    for number, span in ((1, f"bytes=0-{5 * MIB - 1}"), (2, f"bytes={5 * MIB + 2}-{5 * MIB + 4}")):
        made = await s3.upload_part_copy(**upload.here, PartNumber=number, CopySource=source, CopySourceRange=span)
        parts.append({"PartNumber": number, "ETag": made["CopyPartResult"]["ETag"]})
    await s3.complete_multipart_upload(**upload.parts(*parts))
    assert (await s3.body(Bucket="box", Key="k", Range="bytes=-4")) == b"b234"


async def test_uploads_are_listed_page_by_page(s3: Any, bucket: str) -> None:
    made = [await s3.create_multipart_upload(Bucket=bucket, Key=k) for k in ("a", "a", "b", "c")]
    first = await s3.list_multipart_uploads(Bucket=bucket, MaxUploads=3)
    assert first["IsTruncated"] is True
    rest = await s3.list_multipart_uploads(
        Bucket=bucket, KeyMarker=first["NextKeyMarker"], UploadIdMarker=first["NextUploadIdMarker"]
    )
    found = [u["UploadId"] for page in (first, rest) for u in page["Uploads"]]
    assert sorted(found) == sorted(m["UploadId"] for m in made)
    behind = await s3.list_multipart_uploads(Bucket=bucket, KeyMarker="a", Prefix="")
    assert [u["Key"] for u in behind["Uploads"]] == ["b", "c"]
    await s3.delete_bucket(Bucket=bucket)
