"""Leases with fencing tokens: who may write about a name until when. Says nothing about what is written.

A token only grows. Whoever finds a lease expired takes it with a higher token; every write of the earlier holder is
then refused, because it carries the old one. Times are the callers' clocks: machines that share a database keep NTP.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, and_, delete, or_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col, select

from engine.model.errors import StaleLease
from engine.store.tables import LeaseRow

EXECUTOR_PREFIX = "executor:"
STACK_PREFIX = "stack:"
_NEVER_HELD = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Lease:
    """One held lease, as its holder knows it."""

    name: str
    owner: str
    token: int
    expires_at: datetime


def executor_lease(executor_id: str) -> str:
    """The lease that says a worker process is alive."""
    return f"{EXECUTOR_PREFIX}{executor_id}"


def stack_lease(stack: str) -> str:
    """The lease that says who operates a stack."""
    return f"{STACK_PREFIX}{stack}"


def acquire(session: Session, name: str, owner: str, ttl_seconds: float, now: datetime) -> Lease | None:
    """Take a lease that is free, expired, or already this owner's; None while somebody else holds it.

    Taking one's own lease again raises the token too: an earlier run of the same process is fenced off.
    """
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    first = insert(LeaseRow).values(name=name, owner="", token=0, expires_at=_NEVER_HELD)
    connection = session.connection()
    connection.execute(first.on_conflict_do_nothing(index_elements=["name"]))
    expires_at = now + timedelta(seconds=ttl_seconds)
    taken = connection.execute(
        update(LeaseRow)
        .where(col(LeaseRow.name) == name, or_(col(LeaseRow.expires_at) <= now, col(LeaseRow.owner) == owner))
        .values(owner=owner, token=LeaseRow.token + 1, expires_at=expires_at)
        .returning(col(LeaseRow.token))
    ).scalar_one_or_none()
    return None if taken is None else Lease(name, owner, int(taken), expires_at)


def renew(session: Session, lease: Lease, ttl_seconds: float, now: datetime) -> Lease | None:
    """Prolong a lease that is still held; None when it ran out or was taken: the holder must stop."""
    expires_at = now + timedelta(seconds=ttl_seconds)
    held = and_(_is(lease), col(LeaseRow.expires_at) > now)
    if session.connection().execute(update(LeaseRow).where(held).values(expires_at=expires_at)).rowcount == 0:
        return None
    return Lease(lease.name, lease.owner, lease.token, expires_at)


def release(session: Session, lease: Lease, now: datetime) -> None:
    """Give a lease back; nothing happens when it is no longer held. The row stays, so that the token keeps growing."""
    session.connection().execute(update(LeaseRow).where(_is(lease)).values(expires_at=now))


def is_held(session: Session, lease: Lease, now: datetime, *, lock: bool = False) -> bool:
    """Whether exactly this holder, with this token, still holds it: the guard inside a transaction that writes.

    Args:
        lock: nobody takes it, not even when it runs out meanwhile, before the transaction ends.
    """
    query = select(LeaseRow.token).where(_is(lease), col(LeaseRow.expires_at) > now)
    return session.exec(query.with_for_update() if lock else query).first() is not None


def get(session: Session, name: str) -> LeaseRow | None:
    return session.get(LeaseRow, name, populate_existing=True)


def expire_executor(session: Session, executor_id: str, now: datetime) -> int:
    """End all leases of a worker process known to be dead (its parent saw it exit); returns how many were held.

    Without this its operations are taken over when the leases run out by themselves.
    """
    held = and_(col(LeaseRow.owner) == executor_id, col(LeaseRow.expires_at) > now)
    return session.connection().execute(update(LeaseRow).where(held).values(expires_at=now)).rowcount


def live_executors(session: Session, now: datetime) -> frozenset[str]:
    """Executors whose liveness lease runs; every other one is dead, or never was one."""
    running = and_(col(LeaseRow.name).startswith(EXECUTOR_PREFIX), col(LeaseRow.expires_at) > now)
    names = session.exec(select(LeaseRow.name).where(running)).all()
    return frozenset(name.removeprefix(EXECUTOR_PREFIX) for name in names)


def is_executor_dead(session: Session, executor_id: str, now: datetime) -> bool:
    """Whether this executor existed and its lease ended. One nobody heard of is not dead: it may be an operator."""
    row = get(session, executor_lease(executor_id))
    return row is not None and row.expires_at <= now


def prune_executors(session: Session, ended_before: datetime) -> int:
    """Forget executors that died long ago; returns how many. Their backend locks must have been settled by then."""
    ended = and_(col(LeaseRow.name).startswith(EXECUTOR_PREFIX), col(LeaseRow.expires_at) < ended_before)
    return session.connection().execute(delete(LeaseRow).where(ended)).rowcount


class LeaseFence:
    """The `Fence` of one held lease: a cached answer that turns to "no" by itself when nobody renews it.

    `check` costs two comparisons, so it stands before every write. The deadline is measured on a monotonic clock from
    before the renewal was sent, hence never later than what the database says; a process that was stopped and wakes up
    finds it passed.
    """

    def __init__(
        self,
        lease: Lease,
        *,
        deadline: float,
        monotonic: Callable[[], float],
        is_executor_dead: Callable[[str], bool],
    ) -> None:
        self.lease = lease
        self._deadline = deadline
        self._monotonic = monotonic
        self._is_executor_dead = is_executor_dead
        self._lock = threading.Lock()
        self._lost = False

    @property
    def token(self) -> int:
        return self.lease.token

    def check(self) -> None:
        """See `Fence.check`."""
        with self._lock:
            if not self._lost and self._monotonic() < self._deadline:
                return
        raise StaleLease(
            f"the lease {self.lease.name} (token {self.lease.token}) ran out or was taken over",
            lease=self.lease.name,
            token=self.lease.token,
        )

    def holder_is_dead(self, lock_owner: str) -> bool:
        """See `Fence.holder_is_dead`. Our own lock is a leftover: who asks holds this stack's lease, alone."""
        return lock_owner == self.lease.owner or self._is_executor_dead(lock_owner)

    def extend(self, lease: Lease, deadline: float) -> None:
        """Remember a renewal; one that arrives after the loss changes nothing."""
        with self._lock:
            self.lease = lease
            self._deadline = max(self._deadline, deadline)

    def lose(self) -> None:
        """From now on `check` refuses, for good."""
        with self._lock:
            self._lost = True


def _is(lease: Lease) -> ColumnElement[bool]:
    return and_(
        col(LeaseRow.name) == lease.name, col(LeaseRow.owner) == lease.owner, col(LeaseRow.token) == lease.token
    )
