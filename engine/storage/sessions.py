"""Uploads in parts that can be resumed: begin, see what is missing, complete, abort. Receives no bytes itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from engine.model.access import Principal
from engine.model.errors import Conflict, InvalidSpec
from engine.model.storage import PartPlan, Phase, Upload, advance, plan_parts
from engine.storage.backend import Part
from engine.storage.objects import Storage
from engine.store import storage_objects
from engine.store.storage_tables import StoredObjectRow, UploadSessionRow

SESSION_TTL = timedelta(hours=24)
"""Afterwards a session that was not completed is swept, its parts with it."""

PART_TTL = timedelta(hours=6)


@dataclass(frozen=True)
class PartState:
    """One part as a client that resumes sees it.

    Attributes:
        arrived: None: it is missing; `url` is where to PUT it.
    """

    number: int
    size_bytes: int
    arrived: Part | None
    url: str


class UploadSessions:
    """The sessions of an installation's storage."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def begin(
        self, caller: Principal, upload: Upload, part_bytes: int | None = None
    ) -> tuple[StoredObjectRow, UploadSessionRow]:
        """Open a session.

        Raises:
            InvalidSpec: no size was declared, or the part size cannot be.
        """
        if upload.size_bytes is None:
            raise InvalidSpec("sizeBytes: an upload in parts needs the whole size", field="sizeBytes")
        plan = plan_parts(upload.size_bytes, part_bytes)
        storage = self._storage
        row = storage.begin(caller, upload)
        location = storage.backend.begin_parts(row)
        now = storage.clock.now()
        opened = UploadSessionRow(
            id=storage.new_id("ups"), object_id=row.id, org_id=row.org_id, size_bytes=plan.size_bytes,
            part_bytes=plan.part_bytes, location=location, created_at=now, expires_at=now + SESSION_TTL,
        )  # fmt: skip
        with storage.database.write() as session:
            return row, storage_objects.insert_session(session, opened)

    def parts(
        self, caller: Principal, session_id: str, *, after: int = 0, limit: int = 1000
    ) -> tuple[UploadSessionRow, list[PartState]]:
        """The parts after number `after`: which arrived, and where the others go. What a client resumes from."""
        storage = self._storage
        upload, row, arrived = self._read(caller, session_id)
        now = storage.clock.now()
        expires_at = min(now + PART_TTL, upload.expires_at)
        plan = plan_of(upload)
        here = {part.number: part for part in arrived}
        numbers = range(after + 1, min(plan.count, after + limit) + 1) if is_live(upload, now) else ()
        return upload, [
            PartState(n, plan.size_of(n), here.get(n), storage.backend.part_url(row, upload, n, expires_at, now))
            for n in numbers
        ]

    def complete(self, caller: Principal, session_id: str, sha256: str | None = None) -> StoredObjectRow:
        """Make the object of its parts and commit it; again: no change.

        Raises:
            NotFound: no such session.
            Conflict: parts are missing (named), the session is over, or the whole is not what was declared.
        """
        storage = self._storage
        upload, row, arrived = self._read(caller, session_id)
        if upload.state != "completed":
            self._close(upload.id, arrived)
            location = storage.backend.join_parts(row, upload, arrived)
            self._joined(upload, location)
        return storage.commit(caller, upload.object_id, sha256)

    def abort(self, caller: Principal, session_id: str) -> UploadSessionRow:
        """Give up; the parts are removed. Again: no change.

        Raises:
            Conflict: it was completed.
        """
        storage = self._storage
        now = storage.clock.now()
        with storage.database.write() as session:
            upload = storage_objects.owned_session(session, session_id, caller.org_id, lock=True)
            if upload.state == "completed":
                raise Conflict(f"the upload {session_id} is complete: delete the object {upload.object_id} instead")
            if upload.state == "aborted":
                return upload
            upload.state, upload.ended_at = "aborted", now
            session.add(upload)
            row = storage_objects.locked(session, upload.object_id)
            if row is not None and row.phase == Phase.PENDING:
                row.phase, row.deleted_at, row.public_token = advance(Phase(row.phase), Phase.DELETED), now, None
                session.add(row)
        if row is not None:
            storage.backend.drop_parts(row, upload)
        return upload

    def _read(self, caller: Principal, session_id: str) -> tuple[UploadSessionRow, StoredObjectRow, Sequence[Part]]:
        storage = self._storage
        with storage.database.read() as session:
            upload = storage_objects.owned_session(session, session_id, caller.org_id)
            row = storage_objects.get(session, upload.object_id)
            assert row is not None  # a foreign key
            is_over = upload.state in ("completed", "aborted")
            return upload, row, () if is_over else storage.backend.parts(session, row, upload)

    def _close(self, session_id: str, arrived: Sequence[Part]) -> None:
        """No part is taken from now on: all are here."""
        storage = self._storage
        with storage.database.write() as session:
            upload = storage_objects.locked_session(session, session_id)
            if upload is None or not is_live(upload, storage.clock.now()):
                raise Conflict(f"the upload {session_id} was aborted or has expired: begin a new one")
            if storage.backend.name == "disk":  # a part may have been begun anew since they were read
                row = storage_objects.get(session, upload.object_id)
                arrived = storage.backend.parts(session, row, upload) if row else ()
            _require_all(upload, arrived)
            upload.state = "completing"
            session.add(upload)

    def _joined(self, upload: UploadSessionRow, location: str) -> None:
        storage = self._storage
        now = storage.clock.now()
        with storage.database.write() as session:
            row = storage_objects.owned(session, upload.object_id, upload.org_id, lock=True)
            if storage_objects.end_session(session, upload.id, "completed", now):
                row.phase = advance(Phase(row.phase), Phase.UPLOADED)
                row.location, row.size_bytes, row.sha256, row.uploaded_at = location, upload.size_bytes, None, now
                session.add(row)


def plan_of(upload: UploadSessionRow) -> PartPlan:
    return PartPlan(upload.size_bytes, upload.part_bytes)


def is_live(upload: UploadSessionRow, now: datetime) -> bool:
    """Whether parts are waited for, or being joined."""
    return upload.state in ("open", "completing") and upload.expires_at > now


def _require_all(upload: UploadSessionRow, arrived: Sequence[Part]) -> None:
    plan = plan_of(upload)
    sizes = {part.number: part.size_bytes for part in arrived}
    missing = [n for n in range(1, plan.count + 1) if n not in sizes]
    if missing:
        raise Conflict(
            f"{len(missing)} of {plan.count} parts are missing, the first is number {missing[0]}: PUT them, then "
            "complete", missing=missing[:100],
        )  # fmt: skip
    for number, size in sizes.items():
        if number > plan.count or size != plan.size_of(number):
            expected = plan.size_of(number) if number <= plan.count else 0
            raise Conflict(f"part {number} has {size} bytes instead of {expected}: PUT it again", number=number)
