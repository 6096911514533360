"""What a place that keeps objects has to be able to do: the embedded disk, or an S3 server."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from sqlmodel import Session

from engine.model.storage import Upload
from engine.store.storage_tables import StoredObjectRow, UploadSessionRow


@dataclass(frozen=True)
class Part:
    """A part that arrived whole.

    Attributes:
        etag: the server's own name for its content; on the disk its SHA-256.
    """

    number: int
    size_bytes: int
    etag: str
    uploaded_at: datetime


class Backend(Protocol):
    """Keeps bytes. Everything but the URLs may block; `Unavailable` when the place does not answer."""

    name: str

    def prepare(self, org_id: str) -> None:
        """Make sure that an organisation has its place."""
        ...

    def location(self, object_id: str, upload: Upload) -> str:
        """Where an object will lie; "" where that is decided by what arrives."""
        ...

    def put_url(self, row: StoredObjectRow, expires_at: datetime, now: datetime) -> str:
        """Where a client PUTs the whole object."""
        ...

    def worker_url(self, row: StoredObjectRow, expires_at: datetime, now: datetime) -> str:
        """Where our own workers read an object, free."""
        ...

    def part_url(
        self, row: StoredObjectRow, upload: UploadSessionRow, number: int, expires_at: datetime, now: datetime
    ) -> str:
        """Where a client PUTs one part."""
        ...

    def begin_parts(self, row: StoredObjectRow) -> str:
        """A place for parts; its name is the session's `location`."""
        ...

    def parts(self, session: Session, row: StoredObjectRow, upload: UploadSessionRow) -> Sequence[Part]:
        """Parts that are here, by number."""
        ...

    def join_parts(self, row: StoredObjectRow, upload: UploadSessionRow, parts: Sequence[Part]) -> str:
        """Make one object of all parts; again: no change. Returns the object's location."""
        ...

    def drop_parts(self, row: StoredObjectRow, upload: UploadSessionRow) -> None:
        """Forget parts; again: no change."""
        ...

    def size(self, row: StoredObjectRow) -> int | None:
        """Bytes that are here; None: no such object."""
        ...

    def sha256(self, row: StoredObjectRow) -> str:
        """Of the whole object, read in constant memory."""
        ...

    def chunks(self, row: StoredObjectRow) -> Iterator[bytes]:
        """The whole object, piece by piece, in constant memory."""
        ...

    def file_of(self, row: StoredObjectRow) -> Path:
        """Where a committed object lies as a file of this machine once `fetch` has seen to it; always the same."""
        ...

    def fetch(self, row: StoredObjectRow) -> None:
        """Make that file; again: no change. Runs in constant memory.

        Raises:
            Unavailable: what is there is not what was committed.
        """
        ...

    def remove(self, row: StoredObjectRow) -> None:
        """Remove the bytes; again: no change."""
        ...
