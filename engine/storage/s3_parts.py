"""What a backend can do that takes parts from this process, not only from clients: the S3 server's."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol, runtime_checkable

from engine.storage.backend import Backend, Part
from engine.store.storage_tables import StoredObjectRow


@runtime_checkable
class PartsBackend(Backend, Protocol):
    """A `Backend` whose parts we may send ourselves."""

    def put_part(self, row: StoredObjectRow, location: str, number: int, data: bytes, now: datetime) -> Part:
        """Send one part of an upload that `begin_parts` began; number from 1."""
        ...
