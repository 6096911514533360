"""`/v1/storage`: uploads by signed URL, whole or in parts; commit, list, get, publish, delete. Carries no bytes."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query

from api.deps import CallerArg, DepsArg
from api.schemas.storage import (
    Commit,
    Complete,
    MultipartCreate,
    MultipartView,
    ObjectPage,
    ObjectPatch,
    ObjectView,
    PartPage,
    S3View,
    StorageUsage,
    UploadCreate,
    UploadView,
    multipart_view,
    object_view,
    part_page,
    upload_view,
)
from engine.billing.rating import hour_number
from engine.model.errors import Conflict
from engine.model.storage import Phase, parse_checksum
from engine.storage.sessions import UploadSessions
from engine.store import storage_egress, storage_objects

router = APIRouter(prefix="/v1/storage", tags=["storage"])


@router.post("/upload", status_code=201, summary="Get a signed URL to PUT a file to")
def begin_upload(body: UploadCreate, caller: CallerArg, deps: DepsArg) -> UploadView:
    """PUT the file to `uploadUrl`, of any size, then call `POST /v1/storage/commit`."""
    return upload_view(deps.storage, deps.storage.begin(caller, body.upload()))


@router.post("/commit", summary="Check what was uploaded, and make it readable")
def commit_upload(body: Commit, caller: CallerArg, deps: DepsArg) -> ObjectView:
    """Size and checksum are compared with what was declared; 409 when nothing arrived or it is something else."""
    row = deps.storage.commit(caller, body.id, parse_checksum(body.checksum))
    return object_view(deps.storage, row)


@router.get("", summary="Stored objects, newest first")
def list_objects(
    caller: CallerArg,
    deps: DepsArg,
    kind: Annotated[str | None, Query(max_length=32)] = None,
    status: Annotated[
        Literal["pending", "uploaded", "committed"] | None, Query(description="only these; by default all")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[str | None, Query(max_length=100)] = None,
) -> ObjectPage:
    with deps.database.read() as session:
        phase = Phase(status) if status else None
        rows = storage_objects.page(session, caller.org_id, kind=kind, phase=phase, after=after, limit=limit + 1)
    return ObjectPage(data=[object_view(deps.storage, row) for row in rows[:limit]], has_more=len(rows) > limit)


@router.get("/usage", summary="What is kept, and what was read over the internet this month")
def get_storage_usage(caller: CallerArg, deps: DepsArg) -> StorageUsage:
    month = _month_start(deps.clock.now())
    with deps.database.read() as session:
        objects, size = storage_objects.at_rest(session, caller.org_id)
        sent = storage_egress.sent_since(session, caller.org_id, hour_number(month))
    return StorageUsage(
        objects=objects, size_bytes=size, quota_bytes=deps.storage.quota_bytes or None, egress_bytes_this_month=sent
    )  # fmt: skip


@router.get("/s3", summary="The organisation's bucket, for `boto3` and `aws s3`")
def get_bucket(caller: CallerArg, deps: DepsArg) -> S3View:
    """409 where objects lie on the installation's own disk, which speaks no S3."""
    place = deps.storage.s3
    if place is None:
        raise Conflict("this installation keeps objects on its own disk: only one set to an S3 server has buckets")
    deps.storage.backend.prepare(caller.org_id)
    return S3View(endpoint=place.endpoint, region=place.region, bucket=place.bucket(caller.org_id))


@router.post("/multipart", status_code=201, summary="Begin an upload in parts")
def begin_multipart(body: MultipartCreate, caller: CallerArg, deps: DepsArg) -> MultipartView:
    """It can be resumed for 24 hours: `GET …/parts` says what is missing."""
    _, upload = UploadSessions(deps.storage).begin(caller, body.upload(), body.part_size_bytes)
    return multipart_view(upload)


@router.get("/multipart/{upload_id}/parts", summary="The parts of an upload: what arrived, where the others go")
def list_parts(
    upload_id: str,
    caller: CallerArg,
    deps: DepsArg,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
    after: Annotated[int, Query(ge=0, le=10_000)] = 0,
) -> PartPage:
    upload, parts = UploadSessions(deps.storage).parts(caller, upload_id, after=after, limit=limit)
    return part_page(upload, parts)


@router.post("/multipart/{upload_id}/complete", summary="Join all parts, check the whole, make it readable")
def complete_multipart(
    upload_id: str, caller: CallerArg, deps: DepsArg, body: Complete | None = None
) -> ObjectView:  # fmt: skip
    checksum = parse_checksum(body.checksum) if body else None
    return object_view(deps.storage, UploadSessions(deps.storage).complete(caller, upload_id, checksum))


@router.delete("/multipart/{upload_id}", summary="Give up an upload in parts")
def abort_multipart(upload_id: str, caller: CallerArg, deps: DepsArg) -> MultipartView:
    return multipart_view(UploadSessions(deps.storage).abort(caller, upload_id))


@router.get("/{object_id}", summary="One stored object")
def get_object(object_id: str, caller: CallerArg, deps: DepsArg) -> ObjectView:
    with deps.database.read() as session:
        row = storage_objects.owned(session, object_id, caller.org_id)
    return object_view(deps.storage, row)


@router.patch("/{object_id}", summary="Open an object to the public, or close it")
def patch_object(object_id: str, body: ObjectPatch, caller: CallerArg, deps: DepsArg) -> ObjectView:
    return object_view(deps.storage, deps.storage.set_public(caller, object_id, body.public))


@router.delete("/{object_id}", summary="Delete an object; it costs nothing from now on")
def delete_object(object_id: str, caller: CallerArg, deps: DepsArg) -> ObjectView:
    return object_view(deps.storage, deps.storage.delete(caller, object_id))


def _month_start(now: datetime) -> datetime:
    return now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
