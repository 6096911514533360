"""The backend `s3`: any S3 server, one bucket per organisation. Clients talk to it directly, by presigned URLs."""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from sqlmodel import Session

from engine.model.errors import Conflict, Unavailable
from engine.model.storage import Upload
from engine.storage.backend import Part
from engine.storage.s3_urls import S3Place, presign
from engine.store.storage_tables import StoredObjectRow, UploadSessionRow

_CHUNK_BYTES = 1024 * 1024
_MISSING = frozenset({"404", "NoSuchKey", "NotFound", "NoSuchBucket"})
_NO_UPLOAD = frozenset({"NoSuchUpload", "404"})
_OURS = frozenset({"BucketAlreadyOwnedByYou"})
_IN_BUCKET = ("s3:ListBucket", "s3:GetBucketLocation", "s3:ListBucketMultipartUploads")
_ON_OBJECTS = (
    "s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload", "s3:ListMultipartUploadParts",
)  # fmt: skip
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")
_LONGEST_NAME = 200


@dataclass(frozen=True)
class Listed:
    """One object of a bucket as a listing shows it."""

    key: str
    size_bytes: int


class S3Backend:
    """Implements `Backend`. Safe for threads: a boto3 client is."""

    name = "s3"

    def __init__(self, place: S3Place, cache: Path) -> None:
        """`cache`: folder of the objects that were fetched to be sent on; made when one is."""
        self.place = place
        self._cache = cache
        self._prepared: set[str] = set()
        config = Config(
            s3={"addressing_style": "path"}, signature_version="s3v4", retries={"max_attempts": 3}, connect_timeout=5,
            read_timeout=60, request_checksum_calculation="when_required", response_checksum_validation="when_required",
        )  # fmt: skip
        self._client: Any = boto3.session.Session().client(
            "s3", endpoint_url=place.endpoint, region_name=place.region, aws_access_key_id=place.access_key,
            aws_secret_access_key=place.secret_key, config=config,
        )  # fmt: skip

    def prepare(self, org_id: str) -> None:
        """Make the organisation's bucket, if this process has not seen it yet."""
        bucket = self.place.bucket(org_id)
        if bucket in self._prepared:
            return
        with _answers():
            try:
                self._client.head_bucket(Bucket=bucket)
            except ClientError as err:
                if _code(err) not in _MISSING:
                    raise
                self._create(bucket)
        self._prepared.add(bucket)

    def _create(self, bucket: str) -> None:
        elsewhere = {"CreateBucketConfiguration": {"LocationConstraint": self.place.region}}
        try:
            self._client.create_bucket(Bucket=bucket, **(elsewhere if self.place.region != "us-east-1" else {}))
        except ClientError as err:
            if _code(err) not in _OURS:  # another process was first
                raise

    def location(self, object_id: str, upload: Upload) -> str:
        """A key that its owner recognises in `aws s3 ls`."""
        return f"{upload.kind}/{object_id}/{_UNSAFE.sub('_', upload.filename)[-_LONGEST_NAME:]}"

    def put_url(self, row: StoredObjectRow, expires_at: datetime, now: datetime) -> str:
        return self._presign("PUT", row, expires_at, now)

    def worker_url(self, row: StoredObjectRow, expires_at: datetime, now: datetime) -> str:
        return self._presign("GET", row, expires_at, now)

    def part_url(
        self, row: StoredObjectRow, upload: UploadSessionRow, number: int, expires_at: datetime, now: datetime
    ) -> str:
        query = {"partNumber": str(number), "uploadId": upload.location}
        return presign(
            self.place, "PUT", self.place.bucket(row.org_id), row.location, expires_at=expires_at, now=now, query=query
        )

    def begin_parts(self, row: StoredObjectRow) -> str:
        with _answers():
            made = self._client.create_multipart_upload(**self._object(row), ContentType=row.content_type)
        return str(made["UploadId"])

    def parts(self, session: Session, row: StoredObjectRow, upload: UploadSessionRow) -> Sequence[Part]:
        found: list[Part] = []
        with _answers():
            try:
                for page in self._client.get_paginator("list_parts").paginate(
                    **self._object(row), UploadId=upload.location
                ):
                    found += [_part(listed) for listed in page.get("Parts", ())]
            except ClientError as err:
                if _code(err) not in _NO_UPLOAD:
                    raise
        return found

    def join_parts(self, row: StoredObjectRow, upload: UploadSessionRow, parts: Sequence[Part]) -> str:
        listed = [{"PartNumber": part.number, "ETag": part.etag} for part in parts]
        with _answers():
            try:
                self._client.complete_multipart_upload(
                    **self._object(row), UploadId=upload.location, MultipartUpload={"Parts": listed}
                )
            except ClientError as err:
                if _code(err) in ("InvalidPart", "InvalidPartOrder"):
                    raise Conflict("a part was sent again while all were joined: complete once more") from err
                if _code(err) not in _NO_UPLOAD or self.size(row) is None:
                    raise  # else: joined before a crash that kept the database from hearing of it
        return row.location

    def drop_parts(self, row: StoredObjectRow, upload: UploadSessionRow) -> None:
        with _answers():
            try:
                self._client.abort_multipart_upload(**self._object(row), UploadId=upload.location)
            except ClientError as err:
                if _code(err) not in _NO_UPLOAD:
                    raise

    def size(self, row: StoredObjectRow) -> int | None:
        with _answers():
            try:
                return int(self._client.head_object(**self._object(row))["ContentLength"])
            except ClientError as err:
                if _code(err) in _MISSING:
                    return None
                raise

    def sha256(self, row: StoredObjectRow) -> str:
        """Read through: an S3 server keeps no SHA-256 of a whole object that came in parts."""
        digest = hashlib.sha256()
        with _answers():
            body = self._client.get_object(**self._object(row))["Body"]
            with body:
                for chunk in body.iter_chunks(_CHUNK_BYTES):
                    digest.update(chunk)
        return digest.hexdigest()

    def chunks(self, row: StoredObjectRow) -> Iterator[bytes]:
        with _answers():
            body = self._client.get_object(**self._object(row))["Body"]
            with body:
                yield from body.iter_chunks(_CHUNK_BYTES)

    def put_part(self, row: StoredObjectRow, location: str, number: int, data: bytes, now: datetime) -> Part:
        """Send one part ourselves, of an upload that `begin_parts` began."""
        with _answers():
            sent = self._client.upload_part(
                **self._object(row), UploadId=location, PartNumber=number, Body=io.BytesIO(data)
            )
        return Part(number, len(data), str(sent["ETag"]), now)

    def file_of(self, row: StoredObjectRow) -> Path:
        return self._cache / row.id

    def fetch(self, row: StoredObjectRow) -> None:
        """One at a time downloads an object; what a killed process left is written over."""
        target = self.file_of(row)
        if target.exists():
            return
        self._cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = self._cache / f"{row.id}.part"
        with part.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if target.exists():  # somebody else was at it, and `part` may be that very file
                return
            file.truncate(0)
            with _answers():
                digest, written = hashlib.sha256(), 0
                body = self._client.get_object(**self._object(row))["Body"]
                with body:
                    for chunk in body.iter_chunks(_CHUNK_BYTES):
                        file.write(chunk)
                        digest.update(chunk)
                        written += len(chunk)
            file.flush()
            os.fdatasync(file.fileno())  # a name that survives a power cut has its content
            if written != row.size_bytes or (row.sha256 and digest.hexdigest() != row.sha256):
                file.truncate(0)
                raise Unavailable(
                    f"the stored object {row.id} ({row.filename}) is not what was committed: {written} bytes with the "
                    f"SHA-256 {digest.hexdigest()}, not {row.size_bytes} with {row.sha256 or 'any'}; upload it again"
                )
            part.rename(target)

    def remove(self, row: StoredObjectRow) -> None:
        self.file_of(row).unlink(missing_ok=True)
        with _answers():
            try:
                self._client.delete_object(**self._object(row))
            except ClientError as err:
                if _code(err) not in _MISSING:
                    raise

    def listing(self, org_id: str) -> Iterator[Listed]:
        """Everything in an organisation's bucket, page by page. A bucket that is gone is an error, not an empty one."""
        with _answers():
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self.place.bucket(org_id)):
                for listed in page.get("Contents", ()):
                    yield Listed(str(listed["Key"]), int(listed["Size"]))

    def buckets(self) -> set[str]:
        """Names of all buckets of our account."""
        with _answers():
            return {str(bucket["Name"]) for bucket in self._client.list_buckets().get("Buckets", ())}

    def let_in(self, org_id: str, principals: Sequence[str]) -> None:
        """Let users of the S3 server work in one organisation's bucket, and no others; none: only we do.

        Args:
            principals: as the server's bucket policies name them: ARNs on AWS, access keys on a versitygw.
        """
        bucket = self.place.bucket(org_id)
        self.prepare(org_id)
        with _answers():
            if not principals:
                self._client.delete_bucket_policy(Bucket=bucket)
                return
            self._client.put_bucket_policy(Bucket=bucket, Policy=json.dumps(_policy(bucket, principals)))

    def _object(self, row: StoredObjectRow) -> dict[str, str]:
        return {"Bucket": self.place.bucket(row.org_id), "Key": row.location}

    def _presign(self, method: str, row: StoredObjectRow, expires_at: datetime, now: datetime) -> str:
        bucket = self.place.bucket(row.org_id)
        return presign(self.place, method, bucket, row.location, expires_at=expires_at, now=now)


def _policy(bucket: str, principals: Sequence[str]) -> dict[str, Any]:
    arn = f"arn:aws:s3:::{bucket}"
    who = {"Effect": "Allow", "Principal": {"AWS": list(principals)}}
    return {
        "Version": "2012-10-17",
        "Statement": [
            who | {"Action": list(_IN_BUCKET), "Resource": arn},
            who | {"Action": list(_ON_OBJECTS), "Resource": f"{arn}/*"},
        ],
    }


def _part(listed: dict[str, Any]) -> Part:
    return Part(
        int(listed["PartNumber"]), int(listed["Size"]), str(listed["ETag"]), listed["LastModified"].astimezone(UTC)
    )


def _code(err: ClientError) -> str:
    return str(err.response.get("Error", {}).get("Code", ""))


@contextmanager
def _answers() -> Iterator[None]:
    """Foreign errors become ours here, once.

    Raises:
        Unavailable: the server refused or did not answer; the message has its own words.
    """
    try:
        yield
    except ClientError as err:
        said = err.response.get("Error", {}).get("Message") or _code(err)
        raise Unavailable(f"the S3 server refused {err.operation_name}: {said}") from err
    except BotoCoreError as err:
        raise Unavailable(f"the S3 server does not answer: {err}") from err
