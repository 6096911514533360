"""The leader's periodic work on storage, as one call: what it costs, what nobody finished, what buckets hold."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from sqlmodel import Session

from engine.model.errors import StackyardError, StaleLease
from engine.storage import metering
from engine.storage.objects import Storage
from engine.storage.sweeping import sweep_rows

ADOPT_SECONDS = 3600.0
"""Buckets are listed as often: objects are counted by the hour."""

Guard = Callable[[Session], None]

_log = structlog.get_logger(__name__)


class StorageUpkeep:
    """Called by the leader as often as it does its accounts. Blocks.

    Args:
        adopt: compares buckets with what is known of them; None where there are no buckets.
    """

    def __init__(self, storage: Storage, adopt: Callable[[Guard], None] | None = None) -> None:
        self._storage = storage
        self._adopt = adopt
        self._adopted_at: float | None = None

    def __call__(self, guard: Guard) -> None:
        """One pass.

        Args:
            guard: raises inside a writing transaction once another process leads.
        """
        storage = self._storage
        metered = metering.record(storage.database, storage.clock.now(), new_id=storage.new_id, guard=guard)
        if metered.at_rest or metered.egress:
            _log.info("recorded storage", at_rest=metered.at_rest, egress=metered.egress)
        try:
            self._tidy(guard)
        except StaleLease:
            raise
        except StackyardError as err:  # a place that does not answer must not hold up the accounts
            _log.warning("storage was not tidied, the next pass makes it good", error=err.message)

    def _tidy(self, guard: Guard) -> None:
        storage = self._storage
        sessions, objects = sweep_rows(storage.database, storage.clock, storage.backend, guard=guard)
        if sessions or objects:
            _log.info("ended unfinished uploads", sessions=sessions, objects=objects)
        now = storage.clock.monotonic()
        if self._adopt and (self._adopted_at is None or now - self._adopted_at >= ADOPT_SECONDS):
            self._adopted_at = now
            self._adopt(guard)
