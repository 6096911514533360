"""Where the bytes of a direct upload go while nobody knows yet whether they are kept: the disk, or an S3 server.

Every function blocks: call it in a thread. What is not kept is removed; what a killed process left is swept by storage.
"""

from __future__ import annotations

from typing import Protocol

from sqlmodel import Session

from engine.model.access import Principal
from engine.model.errors import Conflict
from engine.model.storage import Phase, Upload, advance
from engine.storage.backend import Part
from engine.storage.blobs import BlobFolder
from engine.storage.objects import Storage
from engine.storage.s3_parts import PartsBackend
from engine.storage.sessions import SESSION_TTL, UploadSessions
from engine.store import storage_objects
from engine.store.storage_tables import StoredObjectRow, UploadSessionRow

KIND = "model"
CONTENT_TYPE = "application/octet-stream"
PART_BYTES = 8 * 1024**2
"""What is kept in memory of an upload to an S3 server; 20 GB are 2,385 parts of the 10,000 that S3 allows."""


class Sink(Protocol):
    """Takes one upload's bytes."""

    def write(self, chunk: bytes | bytearray) -> None:
        """Append.

        Raises:
            StorageFull, Unavailable: the place does not take it.
        """
        ...

    def finish(self) -> None:
        """All bytes came: make them whole."""
        ...

    def keep(self, session: Session, caller: Principal, upload: Upload) -> StoredObjectRow:
        """Write down the object they are, in a transaction of the caller's."""
        ...

    def discard(self) -> None:
        """Remove them; again, or after `keep` was committed: no change."""
        ...


class DiskSink:
    """A blob of the embedded disk."""

    def __init__(self, storage: Storage, blobs: BlobFolder) -> None:
        self._storage = storage
        self._blobs = blobs
        self._blob = storage.new_id("blob")
        self._writer = blobs.writer(self._blob)
        self._is_open = True
        self._object_id = ""

    def write(self, chunk: bytes | bytearray) -> None:
        self._writer.write(chunk)

    def finish(self) -> None:
        self._is_open = False
        self._writer.close(keep=True)
        self._blobs.finish(self._blob)

    def keep(self, session: Session, caller: Principal, upload: Upload) -> StoredObjectRow:
        self._object_id = self._storage.new_id("obj")
        return self._storage.keep(session, caller, upload, object_id=self._object_id, location=self._blob)

    def discard(self) -> None:
        if self._is_open:
            self._is_open = False
            self._writer.close(keep=False)
        with self._storage.database.read() as session:
            if self._object_id and storage_objects.get(session, self._object_id) is not None:
                return
        self._blobs.remove(self._blob)


class S3Sink:
    """An upload in parts to an S3 server, with a session of storage's own, so that it is swept if we are killed."""

    def __init__(self, storage: Storage, backend: PartsBackend, caller: Principal, most_bytes: int) -> None:
        self._storage = storage
        self._backend = backend
        self._caller = caller
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._parts: list[Part] = []
        self._row = storage.begin(caller, Upload("weights.gguf", CONTENT_TYPE, KIND, public=False))
        now = storage.clock.now()
        self._upload = UploadSessionRow(
            id=storage.new_id("ups"), object_id=self._row.id, org_id=self._row.org_id, size_bytes=most_bytes,
            part_bytes=PART_BYTES, location=backend.begin_parts(self._row), created_at=now,
            expires_at=now + SESSION_TTL,
        )  # fmt: skip
        with storage.database.write() as session:
            storage_objects.insert_session(session, self._upload)
        self._is_kept = False

    def write(self, chunk: bytes | bytearray) -> None:
        view = memoryview(chunk)
        while view:
            piece = bytes(view[: PART_BYTES - self._waiting_bytes])
            view = view[len(piece) :]
            self._waiting.append(piece)
            self._waiting_bytes += len(piece)
            if self._waiting_bytes == PART_BYTES:
                self._send()

    def _send(self) -> None:
        data = b"".join(self._waiting)
        self._waiting.clear()  # before it is sent: one copy is enough
        self._waiting_bytes = 0
        number = len(self._parts) + 1
        now = self._storage.clock.now()
        self._parts.append(self._backend.put_part(self._row, self._upload.location, number, data, now))

    def finish(self) -> None:
        if self._waiting or not self._parts:
            self._send()
        self._backend.join_parts(self._row, self._upload, self._parts)

    def keep(self, session: Session, caller: Principal, upload: Upload) -> StoredObjectRow:
        now = self._storage.clock.now()
        row = storage_objects.owned(session, self._row.id, caller.org_id, lock=True)
        if not storage_objects.end_session(session, self._upload.id, "completed", now):
            raise Conflict("the upload took longer than 24 hours: use `POST /api/v1/public/models/uploads`")
        self._storage.require_room(session, caller.org_id, upload.size_bytes or 0)
        row.filename = upload.filename
        row.phase = advance(Phase(row.phase), Phase.UPLOADED)
        self._storage.mark_committed(session, row, upload.size_bytes or 0, upload.sha256, caller.actor)
        self._is_kept = True
        return row

    def discard(self) -> None:
        if self._is_kept:
            with self._storage.database.read() as session:
                row = storage_objects.get(session, self._row.id)
                if row is not None and row.phase == Phase.COMMITTED:
                    return
        UploadSessions(self._storage).abort(self._caller, self._upload.id)
        self._backend.remove(self._row)  # joined already, and then refused
