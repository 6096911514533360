"""Removes what uploads left behind: sessions and objects nobody finished, and files no row knows."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from itertools import islice

import structlog
from sqlmodel import Session

from engine.billing.rating import hour_number
from engine.model.clock import Clock
from engine.storage.backend import Backend
from engine.storage.blobs import BlobFolder
from engine.storage.objects import mark_deleted
from engine.storage.sessions import SESSION_TTL
from engine.store import storage_egress, storage_objects
from engine.store.database import Database
from engine.store.storage_tables import StoredObjectRow, UploadSessionRow

UNFINISHED_FOR = SESSION_TTL
"""An object nobody committed is forgotten after so long."""

ORPHANED_FOR = timedelta(hours=1)
"""A file no row knows may be about to get one: it is written down after its rename."""

KEEP_DELETED = timedelta(days=30)
KEEP_EGRESS = timedelta(days=90)

_log = structlog.get_logger(__name__)


class BlobSweeper:
    """Runs beside the disk that keeps the blobs. Blocks."""

    def __init__(self, database: Database, clock: Clock, blobs: BlobFolder) -> None:
        self._database = database
        self._clock = clock
        self._blobs = blobs

    def __call__(self) -> None:
        """Remove files that no object and no open session needs."""
        idle = self._blobs.unchanged_since(self._clock.now() - ORPHANED_FOR)
        while names := list(islice(idle, 500)):
            with self._database.read() as session:
                needed = storage_objects.locations_of(session, names)
            for name in set(names) - needed:
                self._blobs.remove(name)
                _log.info("removed a file that no object needs", blob=name)


def sweep_rows(
    database: Database, clock: Clock, backend: Backend, *, guard: Callable[[Session], None] = lambda _: None
) -> tuple[int, int]:
    """End sessions that expired and objects that nobody committed; forget what was deleted long ago.

    Returns:
        How many sessions and objects were ended.
    """
    now = clock.now()
    with database.write() as session:
        expired: list[tuple[StoredObjectRow | None, UploadSessionRow]] = []
        for upload in storage_objects.expired_sessions(session, now):
            storage_objects.end_session(session, upload.id, "aborted", now)
            expired.append((storage_objects.get(session, upload.object_id), upload))
        session.flush()
        unfinished = list(storage_objects.stale(session, now - UNFINISHED_FOR))
        for row in unfinished:
            mark_deleted(session, row, now)
        storage_objects.forget_deleted(session, now - KEEP_DELETED)
        storage_egress.prune(session, hour_number(now - KEEP_EGRESS))
        guard(session)
    for row_of, upload in expired:
        if row_of is not None and row_of.backend == backend.name:
            backend.drop_parts(row_of, upload)
    for row in unfinished:
        if row.backend == backend.name:
            backend.remove(row)
    return len(expired), len(unfinished)
