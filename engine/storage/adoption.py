"""Keeps what is known of an organisation's bucket true: its members write to it with S3 credentials of their own.

What they put is listed, served and counted like any other object from the pass on that first sees it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlmodel import Session

from engine.model.errors import InvalidSpec
from engine.model.storage import Phase, Upload
from engine.storage import prices
from engine.storage.objects import Storage, mark_deleted
from engine.storage.s3 import Listed, S3Backend
from engine.store import audit, storage_objects
from engine.store.storage_tables import StoredObjectRow

ACTOR = "system:storage"
AT_ONCE = 500


@dataclass(frozen=True)
class Adopted:
    """What one pass over a bucket found."""

    new: int = 0
    gone: int = 0


def adopt_all(storage: Storage, backend: S3Backend, *, guard: Callable[[Session], None] = lambda _: None) -> Adopted:
    """`adopt` for every organisation that has a bucket, whoever made it.

    Raises:
        Unavailable: the server does not answer.
    """
    there = backend.buckets()
    with storage.database.read() as session:
        org_ids = [id for id in storage_objects.all_org_ids(session) if backend.place.bucket(id) in there]
    found = [adopt(storage, backend, org_id, guard=guard) for org_id in org_ids]
    return Adopted(sum(f.new for f in found), sum(f.gone for f in found))


def adopt(
    storage: Storage, backend: S3Backend, org_id: str, *, guard: Callable[[Session], None] = lambda _: None
) -> Adopted:
    """Compare one organisation's bucket with what is known of it.

    Raises:
        Unavailable: the server does not answer: nothing is taken for gone then.
    """
    started = storage.clock.now()
    listed = {found.key: found for found in backend.listing(org_id)}
    with storage.database.read() as session:
        known = storage_objects.known_locations(session, org_id, backend.name)
    committed = {
        key: row for key, row in known.items() if row.committed_at is not None and row.committed_at < started
    }  # fmt: skip
    changed = [row for key, row in committed.items() if key not in listed or listed[key].size_bytes != row.size_bytes]
    stale = {row.location for row in changed}
    new = [found for key, found in listed.items() if key not in known or key in stale]
    for at in range(0, max(len(changed), len(new)), AT_ONCE):
        with storage.database.write() as session:
            for row in changed[at : at + AT_ONCE]:
                _end(session, row, started)
            for found in new[at : at + AT_ONCE]:
                _begin(session, storage, org_id, found, started)
            guard(session)
    return Adopted(len(new), len(changed))


def _end(session: Session, row: StoredObjectRow, now: datetime) -> None:
    current = storage_objects.locked(session, row.id)
    if current is None or current.phase == Phase.DELETED:
        return
    mark_deleted(session, current, now)
    audit.record(
        session, at=now, actor=ACTOR, org_id=row.org_id, action="storage.gone", subject=row.id,
        details={"key": row.location},
    )  # fmt: skip


def _begin(session: Session, storage: Storage, org_id: str, found: Listed, now: datetime) -> None:
    upload = upload_of(found.key)
    prices.ensure(session, now)
    row = storage_objects.insert(
        session,
        StoredObjectRow(
            id=storage.new_id("obj"), org_id=org_id, kind=upload.kind, filename=upload.filename,
            content_type=upload.content_type, phase=Phase.COMMITTED.value, backend="s3", location=found.key,
            size_bytes=found.size_bytes, created_by=ACTOR, created_at=now, uploaded_at=now, committed_at=now,
            metered_until=now,
        ),
    )  # fmt: skip
    audit.record(
        session, at=now, actor=ACTOR, org_id=org_id, action="storage.adopted", subject=row.id,
        details={"key": found.key, "size_bytes": found.size_bytes},
    )  # fmt: skip


def upload_of(key: str) -> Upload:
    """Kind and name of a key that a member chose: `lora/a/b.bin` is the lora `b.bin`; what fits nowhere is `other`."""
    folder, _, name = key.rstrip("/").rpartition("/")
    for kind in (folder.partition("/")[0], "other"):
        for filename in (name, "unnamed"):
            try:
                return Upload(filename, "application/octet-stream", kind, public=False)
            except InvalidSpec:
                continue
    raise AssertionError("`other` and `unnamed` are always right")
