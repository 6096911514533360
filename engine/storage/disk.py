"""The embedded backend: files of this machine, reached through the gateway by signed URLs. Not S3."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path

from sqlmodel import Session

from engine.model.storage import Upload
from engine.storage.backend import Part
from engine.storage.blobs import CHUNK_BYTES, BlobFolder
from engine.storage.signing import Grant, UrlSigner, Use
from engine.store import storage_objects
from engine.store.storage_tables import StoredObjectRow, UploadSessionRow


class DiskBackend:
    """Implements `Backend`. What arrives is received by `gateway/storage_door.py`."""

    name = "disk"

    def __init__(
        self,
        blobs: BlobFolder,
        signer: UrlSigner,
        public_url: str,
        new_id: Callable[[str], str],
        *,
        worker_public_url: str = "",
    ) -> None:
        """`worker_public_url`: how our own workers reach the gateway; "": as everybody does."""
        self._blobs = blobs
        self._signer = signer
        self._public_url = public_url
        self._worker_public_url = worker_public_url or public_url
        self._new_id = new_id

    def prepare(self, org_id: str) -> None:
        """Nothing: blobs of all organisations lie together, under names that say nothing."""

    def location(self, object_id: str, upload: Upload) -> str:
        return ""

    def put_url(self, row: StoredObjectRow, expires_at: datetime, now: datetime) -> str:
        return self._url(Grant(row.id, Use.PUT, expires_at))

    def worker_url(self, row: StoredObjectRow, expires_at: datetime, now: datetime) -> str:
        return self._worker_public_url + self._signer.path(Grant(row.id, Use.WORKER, expires_at))

    def part_url(
        self, row: StoredObjectRow, upload: UploadSessionRow, number: int, expires_at: datetime, now: datetime
    ) -> str:
        return self._url(Grant(upload.id, Use.PART, expires_at, number))

    def begin_parts(self, row: StoredObjectRow) -> str:
        return self._new_id("blob")

    def parts(self, session: Session, row: StoredObjectRow, upload: UploadSessionRow) -> Sequence[Part]:
        found = storage_objects.parts(session, upload.id)
        return [Part(p.number, p.size_bytes, p.sha256, p.uploaded_at) for p in found]

    def join_parts(self, row: StoredObjectRow, upload: UploadSessionRow, parts: Sequence[Part]) -> str:
        """A rename: parts were written at their offsets of one file."""
        self._blobs.finish(upload.location)
        return upload.location

    def drop_parts(self, row: StoredObjectRow, upload: UploadSessionRow) -> None:
        self._blobs.remove(upload.location)

    def size(self, row: StoredObjectRow) -> int | None:
        return self._blobs.size(row.location) if row.location else None

    def sha256(self, row: StoredObjectRow) -> str:
        return self._blobs.sha256(row.location)

    def chunks(self, row: StoredObjectRow) -> Iterator[bytes]:
        with self._blobs.path(row.location).open("rb", buffering=0) as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def file_of(self, row: StoredObjectRow) -> Path:
        return self._blobs.path(row.location)

    def fetch(self, row: StoredObjectRow) -> None:
        """Nothing: it is a file already."""

    def remove(self, row: StoredObjectRow) -> None:
        if row.location:
            self._blobs.remove(row.location)

    def _url(self, grant: Grant) -> str:
        return self._public_url + self._signer.path(grant)
