"""Counts bytes on their way to the public internet, in memory, and writes them down every second."""

from __future__ import annotations

import threading

import structlog
from sqlalchemy.exc import SQLAlchemyError

from engine.billing.rating import hour_number
from engine.model.clock import Clock
from engine.storage.reading import Readable
from engine.store import storage_egress
from engine.store.database import Database
from engine.store.storage_egress import Sent

_log = structlog.get_logger(__name__)


class EgressCounter:
    """One per process that sends. A crash costs what was sent in the last second, never anything twice."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._lock = threading.Lock()
        self._sent: dict[str, Sent] = {}

    def add(self, what: Readable, sent_bytes: int) -> None:
        """Count bytes that were handed to the socket."""
        with self._lock:
            self._add(Sent(what.object_id, what.org_id, what.key_id, sent_bytes))

    def flush(self) -> None:
        """Write down what was counted; kept for the next time when the store does not answer. Blocks."""
        with self._lock:
            taken, self._sent = self._sent, {}
        if not taken:
            return
        now = self._clock.now()
        try:
            with self._database.write() as session:
                storage_egress.add(session, taken.values(), hour_number(now), now)
        except SQLAlchemyError as err:
            _log.warning("egress is not written down yet", error=str(err.__cause__ or err))
            with self._lock:
                for sent in taken.values():
                    self._add(sent)

    def _add(self, sent: Sent) -> None:
        before = self._sent.get(sent.object_id)
        total = sent.sent_bytes + (before.sent_bytes if before else 0)
        self._sent[sent.object_id] = sent._replace(sent_bytes=total)
