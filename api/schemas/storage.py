"""Stored objects on the wire: names as Hypereal's document has them (`sizeBytes`); checksums read `sha256:…`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from engine.model.storage import LARGEST_OBJECT, Upload, parse_checksum
from engine.storage.objects import Storage
from engine.storage.prices import FREE_EGRESS_BYTES
from engine.storage.sessions import PartState, plan_of
from engine.store.storage_tables import StoredObjectRow, UploadSessionRow

_REQUEST = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=True)
_ANSWER = ConfigDict(alias_generator=to_camel, populate_by_name=True, serialize_by_alias=True)


class UploadCreate(BaseModel):
    """What is to be stored. With `sizeBytes` and `checksum` (SHA-256) the upload is checked against them."""

    model_config = _REQUEST
    filename: str = Field(min_length=1, max_length=255, examples=["lora.safetensors"])
    content_type: str = Field("application/octet-stream", max_length=255)
    kind: str = Field("other", max_length=32, description="lora, model, dataset, output, … : what lists filter by")
    size_bytes: int | None = Field(None, ge=0, le=LARGEST_OBJECT)
    checksum: str | None = Field(None, max_length=100, description="SHA-256, 64 hexadecimal digits")
    public: bool = Field(True, description="make a publicUrl: unguessable, and readable by whoever knows it")

    def upload(self) -> Upload:
        """The values, checked."""
        return Upload(
            self.filename, self.content_type.lower(), self.kind, self.size_bytes, parse_checksum(self.checksum),
            self.public,
        )  # fmt: skip


class MultipartCreate(UploadCreate):
    """An upload in parts; its size is needed."""

    size_bytes: int | None = Field(ge=0, le=LARGEST_OBJECT)
    part_size_bytes: int | None = Field(None, description="5 MiB to 5 GiB; by default 64 MiB, more for large objects")


class Commit(BaseModel):
    """Which upload is finished. The checksum (SHA-256) is compared with what arrived."""

    model_config = _REQUEST
    id: str = Field(min_length=1, max_length=100)
    checksum: str | None = Field(None, max_length=100)


class Complete(BaseModel):
    """The end of an upload in parts."""

    model_config = _REQUEST
    checksum: str | None = Field(None, max_length=100)


class ObjectPatch(BaseModel):
    """What may change of an object: who may read it."""

    model_config = _REQUEST
    public: bool


class UploadView(BaseModel):
    """Where to PUT the file, and where it will be read: the PUT begins before `uploadExpiresAt`."""

    model_config = _ANSWER
    id: str
    upload_url: str
    public_url: str | None
    upload_expires_at: datetime


class ObjectView(BaseModel):
    """A stored object. `publicUrl` is null unless public; `downloadUrl` is for its owners and good for an hour."""

    model_config = _ANSWER
    id: str
    filename: str
    content_type: str
    kind: str
    status: str = Field(description="pending, uploaded, committed or deleted")
    size_bytes: int | None
    checksum: str | None
    public: bool
    public_url: str | None
    download_url: str | None
    created_at: datetime
    committed_at: datetime | None


class ObjectPage(BaseModel):
    """Newest first; `after` takes the last one's id for the next page."""

    data: list[ObjectView]
    has_more: bool


class MultipartView(BaseModel):
    """An open upload in parts: PUT each one to its URL (`GET …/parts`), in any order, again after a failure."""

    model_config = _ANSWER
    id: str
    upload_id: str
    status: str
    size_bytes: int
    part_size_bytes: int
    part_count: int
    expires_at: datetime


class PartView(BaseModel):
    """One part; `uploadedAt` null: it is missing, PUT `sizeBytes` bytes to `uploadUrl`."""

    model_config = _ANSWER
    number: int
    size_bytes: int
    etag: str | None
    uploaded_at: datetime | None
    upload_url: str


class PartPage(BaseModel):
    """Parts by number; `after` takes the last one's number for the next page."""

    model_config = _ANSWER
    id: str
    upload_id: str
    status: str
    part_size_bytes: int
    part_count: int
    data: list[PartView]
    has_more: bool = Field(alias="has_more")  # as in every page of this API


class StorageUsage(BaseModel):
    """What an organisation keeps, and what of it was read over the internet this month (UTC). A GB is 10^9 bytes."""

    model_config = _ANSWER
    objects: int
    size_bytes: int
    quota_bytes: int | None
    egress_bytes_this_month: int
    free_egress_bytes: int = FREE_EGRESS_BYTES


class S3View(BaseModel):
    """Where an organisation's bucket is. Credentials for it come from the operator (`engine/storage/README.md`)."""

    model_config = _ANSWER
    endpoint: str
    region: str
    bucket: str
    addressing: str = "path"


def upload_view(storage: Storage, row: StoredObjectRow) -> UploadView:
    url, expires_at = storage.put_url(row)
    return UploadView(
        id=row.id, upload_url=url, public_url=storage.public_url_of(row), upload_expires_at=expires_at
    )  # fmt: skip


def object_view(storage: Storage, row: StoredObjectRow) -> ObjectView:
    return ObjectView(
        id=row.id,
        filename=row.filename,
        content_type=row.content_type,
        kind=row.kind,
        status=row.phase,
        size_bytes=row.declared_bytes if row.size_bytes is None else row.size_bytes,
        checksum=f"sha256:{found}" if (found := row.sha256 or row.declared_sha256) else None,
        public=row.public_token is not None,
        public_url=storage.public_url_of(row),
        download_url=storage.download_url(row),
        created_at=row.created_at,
        committed_at=row.committed_at,
    )


def multipart_view(upload: UploadSessionRow) -> MultipartView:
    plan = plan_of(upload)
    return MultipartView(
        id=upload.object_id, upload_id=upload.id, status=upload.state, size_bytes=plan.size_bytes,
        part_size_bytes=plan.part_bytes, part_count=plan.count, expires_at=upload.expires_at,
    )  # fmt: skip


def part_page(upload: UploadSessionRow, parts: Sequence[PartState]) -> PartPage:
    plan = plan_of(upload)
    data = [
        PartView(
            number=part.number, size_bytes=part.size_bytes, etag=part.arrived.etag if part.arrived else None,
            uploaded_at=part.arrived.uploaded_at if part.arrived else None, upload_url=part.url,
        )
        for part in parts
    ]  # fmt: skip
    return PartPage(
        id=upload.object_id, upload_id=upload.id, status=upload.state, part_size_bytes=plan.part_bytes,
        part_count=plan.count, data=data, has_more=bool(parts) and parts[-1].number < plan.count,
    )  # fmt: skip
