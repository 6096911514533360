"""Queries about one-time secrets. A secret itself is never stored: callers pass its keyed hash."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, update
from sqlmodel import Session, col, select

from engine.store.account_tables import VerificationRow


def insert(session: Session, row: VerificationRow) -> VerificationRow:
    session.add(row)
    session.flush()
    return row


def by_secret(session: Session, kind: str, secret_hash: str, now: datetime) -> VerificationRow | None:
    """The row that is still good for one use."""
    query = select(VerificationRow).where(VerificationRow.secret_hash == secret_hash, VerificationRow.kind == kind)
    query = query.where(col(VerificationRow.used_at).is_(None), col(VerificationRow.expires_at) > now)
    return session.exec(query).first()


def newest(session: Session, user_id: str, kind: str, now: datetime) -> VerificationRow | None:
    """An account's latest row of a kind that is still good for one use."""
    query = select(VerificationRow).where(VerificationRow.user_id == user_id, VerificationRow.kind == kind)
    query = query.where(col(VerificationRow.used_at).is_(None), col(VerificationRow.expires_at) > now)
    latest_first = query.order_by(col(VerificationRow.created_at).desc(), col(VerificationRow.id))
    return session.exec(latest_first.limit(1)).first()


def use(session: Session, verification_id: str, now: datetime) -> bool:
    """Use a row up; False when somebody else did at the same time."""
    used = update(VerificationRow).where(col(VerificationRow.id) == verification_id)
    used = used.where(col(VerificationRow.used_at).is_(None))
    return session.connection().execute(used.values(used_at=now)).rowcount == 1


def count_attempt(session: Session, verification_id: str) -> int:
    """Count a wrong or right attempt; returns how many that makes."""
    counted = update(VerificationRow).where(col(VerificationRow.id) == verification_id)
    counted = counted.values(attempts=col(VerificationRow.attempts) + 1).returning(col(VerificationRow.attempts))
    number: int = session.connection().execute(counted).scalar_one()
    return number


def void(session: Session, user_id: str, kind: str, now: datetime) -> None:
    """Use up all rows of a kind: a newer one takes their place, or they have become pointless."""
    voided = update(VerificationRow).where(col(VerificationRow.user_id) == user_id, col(VerificationRow.kind) == kind)
    session.connection().execute(voided.where(col(VerificationRow.used_at).is_(None)).values(used_at=now))


def discard(session: Session, verification_id: str) -> None:
    """Forget a row whose secret was never sent."""
    session.connection().execute(delete(VerificationRow).where(col(VerificationRow.id) == verification_id))


def prune(session: Session, before: datetime) -> int:
    """Forget rows that expired before then; returns how many."""
    return (
        session.connection().execute(delete(VerificationRow).where(col(VerificationRow.expires_at) < before)).rowcount
    )
