"""Queries about browser sessions. A cookie itself is never stored: callers pass its keyed hash."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete, update
from sqlmodel import Session, col, select

from engine.store.account_tables import SessionRow, UserRow


def insert(session: Session, row: SessionRow) -> SessionRow:
    session.add(row)
    session.flush()
    return row


def live_with_user(session: Session, token_hash: str, now: datetime) -> tuple[SessionRow, UserRow] | None:
    """The session of this cookie and its account; None when either is over."""
    query = select(SessionRow, UserRow).join(UserRow, col(UserRow.id) == SessionRow.user_id)
    query = query.where(SessionRow.token_hash == token_hash, col(SessionRow.expires_at) > now)
    return session.exec(query.where(col(SessionRow.revoked_at).is_(None), col(UserRow.disabled_at).is_(None))).first()


def list_live(session: Session, user_id: str, now: datetime) -> Sequence[SessionRow]:
    """An account's open sessions, last used first."""
    query = select(SessionRow).where(SessionRow.user_id == user_id, col(SessionRow.expires_at) > now)
    query = query.where(col(SessionRow.revoked_at).is_(None))
    return session.exec(query.order_by(col(SessionRow.last_used_at).desc(), col(SessionRow.id))).all()


def renew(session: Session, session_id: str, now: datetime) -> None:
    """Note a use: the session lives on for its idle time, never past its end. One that is over stays over."""
    row = session.get(SessionRow, session_id)
    if row is None or row.revoked_at is not None or row.expires_at <= now:
        return
    row.last_used_at = now
    row.expires_at = min(now + timedelta(seconds=row.idle_seconds), row.ends_at)
    session.add(row)


def revoke(session: Session, user_id: str, session_id: str, now: datetime) -> SessionRow | None:
    """End one session of an account; None when the account has no such open session."""
    row = session.get(SessionRow, session_id)
    if row is None or row.user_id != user_id or row.revoked_at is not None or row.expires_at <= now:
        return None
    row.revoked_at = now
    session.add(row)
    return row


def revoke_all(session: Session, user_id: str, now: datetime, *, but: str | None = None) -> int:
    """End an account's sessions, except `but`; returns how many."""
    ended = update(SessionRow).where(col(SessionRow.user_id) == user_id, col(SessionRow.revoked_at).is_(None))
    ended = ended.where(col(SessionRow.expires_at) > now)
    if but is not None:
        ended = ended.where(col(SessionRow.id) != but)
    return session.connection().execute(ended.values(revoked_at=now)).rowcount


def prune(session: Session, before: datetime) -> int:
    """Forget sessions that were over before then; returns how many."""
    return session.connection().execute(delete(SessionRow).where(col(SessionRow.expires_at) < before)).rowcount
