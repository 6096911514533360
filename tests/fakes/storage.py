"""Object storage over a temporary folder, for tests: the real service with the disk backend."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from engine.gateway.storage_door import DiskSource, StorageDoor
from engine.model import ids
from engine.model.access import Principal
from engine.model.clock import Clock
from engine.storage.blobs import BlobFolder
from engine.storage.disk import DiskBackend
from engine.storage.egress import EgressCounter
from engine.storage.objects import Storage
from engine.storage.reading import Reader
from engine.storage.receiving import Receiver
from engine.storage.signing import UrlSigner
from engine.storage.sweeping import BlobSweeper
from engine.store import storage_objects
from engine.store.database import Database
from engine.store.storage_tables import StoredObjectRow

SECRET = b"0123456789abcdef0123456789abcdef"
CALLER = Principal("org_1", key_id="key_1")


@dataclass
class DiskStorage:
    """The service and what stands around it."""

    service: Storage
    blobs: BlobFolder
    receiver: Receiver
    reader: Reader
    egress: EgressCounter
    sweep: BlobSweeper

    def door(self) -> StorageDoor:
        """A byte path; one per event loop."""
        return StorageDoor(
            self.service.signer, self.receiver, self.reader, DiskSource(self.blobs), self.egress, self.service.clock,
            self.sweep,
        )  # fmt: skip


def disk_storage(
    database: Database, clock: Clock, folder: Path, *, public_url: str = "http://yard.test", quota_bytes: int = 0
) -> DiskStorage:
    """Storage below `folder`."""
    signer, blobs = UrlSigner(SECRET), BlobFolder(folder)
    service = Storage(
        database=database, clock=clock, backend=DiskBackend(blobs, signer, public_url, ids.new_id), signer=signer,
        public_url=public_url, new_id=ids.new_id, new_token=lambda: ids.random_text(26), quota_bytes=quota_bytes,
    )  # fmt: skip
    return DiskStorage(
        service, blobs, Receiver(database, clock, blobs, ids.new_id, quota_bytes=quota_bytes), Reader(database),
        EgressCounter(database, clock), BlobSweeper(database, clock, blobs),
    )  # fmt: skip


def stored(database: Database, size: int, committed_at: datetime, **values: Any) -> str:
    """A committed object that has only a row; returns its id."""
    row = StoredObjectRow(
        id=ids.new_id("obj"), org_id="org_1", kind="model", filename="m", content_type="a/b", phase="committed",
        backend="disk", location=ids.new_id("blob"), size_bytes=size, created_by="key_1", key_id="key_1",
        created_at=committed_at, committed_at=committed_at, metered_until=committed_at,
    )  # fmt: skip
    for name, value in values.items():
        setattr(row, name, value)
    with database.write() as session:
        return storage_objects.insert(session, row).id
