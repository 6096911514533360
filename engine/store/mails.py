"""Queries about mails that wait to be sent. Sends nothing: that is `identity/outbox.py`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import delete
from sqlmodel import Session, col, func, select

from engine.store.account_tables import MailRow


def insert(session: Session, row: MailRow) -> MailRow:
    session.add(row)
    session.flush()
    return row


def claim(session: Session, now: datetime, hold: timedelta, *, limit: int = 20) -> Sequence[MailRow]:
    """Mails that are due, oldest first, [n], n ≤ limit; nobody else is given them for as long as `hold`."""
    due = select(MailRow).where(col(MailRow.next_attempt_at) <= now).order_by(col(MailRow.next_attempt_at))
    rows = session.exec(due.limit(limit).with_for_update(skip_locked=True)).all()
    for row in rows:
        row.next_attempt_at = now + hold
        row.attempts += 1
        session.add(row)
    return rows


def sent(session: Session, mail_id: str) -> None:
    """Forget a mail that a server took."""
    session.connection().execute(delete(MailRow).where(col(MailRow.id) == mail_id))


def failed(session: Session, mail_id: str, error: str, next_attempt_at: datetime | None) -> None:
    """Note why a mail was not taken, and when to try again (None: never)."""
    row = session.get(MailRow, mail_id)
    if row is None:
        return
    row.last_error = error
    row.next_attempt_at = next_attempt_at
    session.add(row)


def waiting(session: Session) -> int:
    """How many mails are still to be sent."""
    query = select(func.count()).select_from(MailRow).where(col(MailRow.next_attempt_at).is_not(None))
    return session.exec(query).one()


def prune(session: Session, before: datetime) -> int:
    """Forget mails written before then, sent or not: what they say has expired; returns how many."""
    return session.connection().execute(delete(MailRow).where(col(MailRow.created_at) < before)).rowcount
