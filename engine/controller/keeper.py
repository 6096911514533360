"""Keeps this process's leases alive from one thread. Decides nothing: a lease that is gone is reported to its fence."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog
from sqlalchemy.exc import SQLAlchemyError

from engine.model.clock import Clock
from engine.store import leases
from engine.store.database import Database
from engine.store.leases import Lease, LeaseFence

RENEWALS_PER_TTL = 4
"""A lease survives two renewals that fail or are late (a stalled disk, a database that restarts)."""

_log = structlog.get_logger(__name__)


class LeaseKeeper:
    """Takes, renews and gives back leases for one owner.

    Args:
        owner: executor id of this process.
        ttl_seconds: how long a lease lasts without renewal.
        on_death: called once, from the keeper's thread, when the process's own liveness lease is lost.
    """

    def __init__(
        self, database: Database, clock: Clock, *, owner: str, ttl_seconds: float, on_death: Callable[[], None]
    ) -> None:
        self._database = database
        self._clock = clock
        self._owner = owner
        self._ttl = ttl_seconds
        self._on_death = on_death
        self._held: dict[str, LeaseFence] = {}
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lease-keeper", daemon=True)

    def start(self) -> None:
        """Take the liveness lease and begin to renew."""
        if self.take(leases.executor_lease(self._owner)) is None:
            raise RuntimeError(f"another process is running as executor {self._owner}: give each its own executor id")
        self._thread.start()

    def stop(self) -> None:
        """Give everything back: others may take over at once."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=self._ttl)
        for fence in self._fences():
            self.give_back(fence)

    def take(self, name: str) -> LeaseFence | None:
        """Hold a lease from now on; None while somebody else, or another thread of this process, holds it."""
        with self._lock:
            if name in self._held:
                return None
        asked_at = self._clock.monotonic()
        with self._database.write() as session:
            lease = leases.acquire(session, name, self._owner, self._ttl, self._clock.now())
        if lease is None:
            return None
        fence = LeaseFence(
            lease,
            deadline=asked_at + self._ttl,
            monotonic=self._clock.monotonic,
            is_executor_dead=self._is_executor_dead,
        )
        with self._lock:
            self._held[name] = fence
        return fence

    def give_back(self, fence: LeaseFence) -> None:
        """Stop renewing and free the lease; harmless when it is lost already."""
        with self._lock:
            self._held.pop(fence.lease.name, None)
        fence.lose()
        with self._database.write() as session:
            leases.release(session, fence.lease, self._clock.now())

    def renew_all(self) -> None:
        """One round of renewals, in one transaction."""
        fences = self._fences()
        asked_at = self._clock.monotonic()
        with self._database.write() as session:
            now = self._clock.now()
            renewed: list[tuple[LeaseFence, Lease | None]] = [
                (fence, leases.renew(session, fence.lease, self._ttl, now)) for fence in fences
            ]
        for fence, lease in renewed:
            if lease is not None:
                fence.extend(lease, asked_at + self._ttl)
            else:
                self._report_lost(fence)

    def _report_lost(self, fence: LeaseFence) -> None:
        fence.lose()
        with self._lock:
            given_back = fence.lease.name not in self._held
        if given_back:
            return
        _log.warning("lease lost", lease=fence.lease.name, token=fence.token)
        if fence.lease.name == leases.executor_lease(self._owner):
            self._stopping.set()
            self._on_death()

    def _run(self) -> None:
        while not self._stopping.wait(self._ttl / RENEWALS_PER_TTL):
            try:
                self.renew_all()
            except SQLAlchemyError as err:  # fences run out by themselves while the database is away
                _log.warning("leases could not be renewed", error=str(err))

    def _fences(self) -> list[LeaseFence]:
        with self._lock:
            return list(self._held.values())

    def _is_executor_dead(self, executor_id: str) -> bool:
        with self._database.read() as session:
            return leases.is_executor_dead(session, executor_id, self._clock.now())
