"""Counts of attempts in windows of time, shared by all processes. Knows no limits: those are `identity/attempts.py`."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import case, delete
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col

from engine.store.account_tables import AttemptRow


def count(session: Session, name: str, window: timedelta, now: datetime) -> tuple[int, datetime]:
    """Count one more; returns how many that makes in this window, and when it ends.

    One statement, so that attempts at the same time each get a number of their own.
    """
    connection = session.connection()
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    new = insert(AttemptRow).values(name=name, count=1, resets_at=now + window)
    over = col(AttemptRow.resets_at) <= now
    counted = new.on_conflict_do_update(
        index_elements=["name"],
        set_={
            "count": case((over, 1), else_=col(AttemptRow.count) + 1),
            "resets_at": case((over, now + window), else_=col(AttemptRow.resets_at)),
        },
    ).returning(col(AttemptRow.count), col(AttemptRow.resets_at))
    number, resets_at = connection.execute(counted).one()
    return number, resets_at


def forget(session: Session, name: str) -> None:
    """Begin anew: what was tried has succeeded."""
    session.connection().execute(delete(AttemptRow).where(col(AttemptRow.name) == name))


def prune(session: Session, now: datetime) -> int:
    """Forget windows that are over; returns how many."""
    return session.connection().execute(delete(AttemptRow).where(col(AttemptRow.resets_at) <= now)).rowcount
