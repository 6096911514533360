"""Queries about API keys. A key itself is never stored: callers pass its keyed hash."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import update
from sqlmodel import Session, col, or_, select

from engine.model.errors import NotFound
from engine.store import changes
from engine.store.tables import ApiKeyRow


def insert(session: Session, row: ApiKeyRow) -> ApiKeyRow:
    session.add(row)
    session.flush()
    changes.record(session, changes.KEY, row.id, row.created_at)
    return row


def list_for_org(session: Session, org_id: str) -> Sequence[ApiKeyRow]:
    """All keys of a tenant, revoked ones too, newest first."""
    query = select(ApiKeyRow).where(ApiKeyRow.org_id == org_id)
    return session.exec(query.order_by(col(ApiKeyRow.created_at).desc(), col(ApiKeyRow.id))).all()


def revoke(session: Session, key_id: str, now: datetime, *, org_id: str | None = None) -> ApiKeyRow | None:
    """Revoke a key (again: no change); None when there is no such key in `org_id` (None: in any tenant)."""
    row = session.get(ApiKeyRow, key_id)
    if row is None or (org_id is not None and row.org_id != org_id):
        return None
    if row.revoked_at is None:
        row.revoked_at = now
        session.add(row)
        changes.record(session, changes.KEY, row.id, now)
    return row


def announce_made_by(session: Session, user_id: str, now: datetime) -> None:
    """Tell caches that what an account's keys may do has changed: its role, its membership, or the account itself."""
    for key_id in session.exec(select(ApiKeyRow.id).where(ApiKeyRow.created_by == user_id)):
        changes.record(session, changes.KEY, key_id, now)


def revoke_made_by(session: Session, user_id: str, now: datetime, *, org_id: str) -> int:
    """Revoke the keys that an account made in a tenant; returns how many still were open."""
    query = select(ApiKeyRow).where(ApiKeyRow.created_by == user_id, ApiKeyRow.org_id == org_id)
    rows = session.exec(query.where(col(ApiKeyRow.revoked_at).is_(None))).all()
    for row in rows:
        revoke(session, row.id, now)
    return len(rows)


def note_use(session: Session, used: Mapping[str, datetime]) -> None:
    """Record when keys were last used; never back in time. Caches need not know: nothing is announced."""
    connection = session.connection()
    for key_id, at in sorted(used.items()):
        earlier = or_(col(ApiKeyRow.last_used_at).is_(None), col(ApiKeyRow.last_used_at) < at)
        connection.execute(update(ApiKeyRow).where(col(ApiKeyRow.id) == key_id, earlier).values(last_used_at=at))


def get(session: Session, key_id: str) -> ApiKeyRow | None:
    return session.get(ApiKeyRow, key_id)


def one(session: Session, key_id: str, *, org_id: str, for_update: bool = False) -> ApiKeyRow:
    """A key of this tenant.

    Raises:
        NotFound: there is none, or it is another tenant's.
    """
    row = session.get(ApiKeyRow, key_id, with_for_update=for_update or None, populate_existing=for_update)
    if row is None or row.org_id != org_id:
        raise NotFound(f"no key {key_id}")
    return row


def successor(session: Session, key_id: str, now: datetime) -> ApiKeyRow | None:
    """The live key that this one was rotated into."""
    unexpired = or_(col(ApiKeyRow.expires_at).is_(None), col(ApiKeyRow.expires_at) > now)
    query = select(ApiKeyRow).where(ApiKeyRow.replaces == key_id, col(ApiKeyRow.revoked_at).is_(None), unexpired)
    return session.exec(query).first()


def expire(session: Session, row: ApiKeyRow, at: datetime, now: datetime) -> None:
    """Let a key end at `at`, unless it ends before."""
    row.expires_at = at if row.expires_at is None else min(row.expires_at, at)
    session.add(row)
    session.flush()
    changes.record(session, changes.KEY, row.id, now)


def scope(session: Session, row: ApiKeyRow, now: datetime) -> None:
    """Limit a key to the deployments it is granted, for good."""
    row.is_scoped = True
    session.add(row)
    session.flush()
    changes.record(session, changes.KEY, row.id, now)


def by_hash(session: Session, key_hash: str) -> ApiKeyRow | None:
    """The key with this keyed hash, whether or not it still opens anything."""
    return session.exec(select(ApiKeyRow).where(ApiKeyRow.key_hash == key_hash)).first()


def all_active(session: Session, now: datetime) -> Sequence[ApiKeyRow]:
    """Every key that opens something at `now`: what the gateway's cache is filled from."""
    unexpired = or_(col(ApiKeyRow.expires_at).is_(None), col(ApiKeyRow.expires_at) > now)
    return session.exec(select(ApiKeyRow).where(col(ApiKeyRow.revoked_at).is_(None), unexpired)).all()
