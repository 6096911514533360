"""The leader's periodic work on storage, as one call: record what it costs, end what nobody finished."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from sqlmodel import Session

from engine.model.errors import StackyardError, StaleLease
from engine.storage import metering
from engine.storage.objects import Storage
from engine.storage.sweeping import sweep_rows

_log = structlog.get_logger(__name__)


class StorageUpkeep:
    """Called by the leader as often as it does its accounts. Blocks."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def __call__(self, guard: Callable[[Session], None]) -> None:
        """One pass.

        Args:
            guard: raises inside a writing transaction once another process leads.
        """
        storage = self._storage
        metered = metering.record(storage.database, storage.clock.now(), new_id=storage.new_id, guard=guard)
        if metered.at_rest or metered.egress:
            _log.info("recorded storage", at_rest=metered.at_rest, egress=metered.egress)
        try:
            sessions, objects = sweep_rows(storage.database, storage.clock, storage.backend, guard=guard)
        except StaleLease:
            raise
        except StackyardError as err:  # a place that does not answer must not hold up the accounts
            _log.warning("what uploads left could not be swept", error=err.message)
            return
        if sessions or objects:
            _log.info("ended unfinished uploads", sessions=sessions, objects=objects)
