"""The audit log: append-only rows, each chained to the one before it by a hash. Decides nothing about who may act."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import text
from sqlmodel import Session, col, select

from engine.store.tables import AuditRow

GENESIS = "0" * 64
_CHAIN_LOCK = 0x57AC_A0D1  # any number that no other advisory lock of this system uses


def record(
    session: Session,
    *,
    at: datetime,
    actor: str,
    action: str,
    subject: str,
    org_id: str | None = None,
    details: Mapping[str, Any] | None = None,
) -> AuditRow:
    """Append one row, in the caller's transaction: it is there if and only if the deed is.

    Call it late in the transaction: on PostgreSQL appends wait for each other until the commit.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.connection().execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CHAIN_LOCK})
    last = session.exec(select(AuditRow).order_by(col(AuditRow.seq).desc()).limit(1)).first()
    row = AuditRow(
        seq=last.seq + 1 if last else 1, at=at, actor=actor, org_id=org_id, action=action, subject=subject,
        details=dict(details or {}), previous_hash=last.hash if last else GENESIS, hash="",
    )  # fmt: skip
    row.hash = hash_of(row)
    session.add(row)
    session.flush()
    return row


def hash_of(row: AuditRow) -> str:
    """SHA-256 over everything in the row but its own hash, as hexadecimal text, [64]."""
    facts = {
        "seq": row.seq, "at": row.at.astimezone(UTC).isoformat(timespec="microseconds"), "actor": row.actor,
        "org_id": row.org_id, "action": row.action, "subject": row.subject, "details": row.details,
        "previous_hash": row.previous_hash,
    }  # fmt: skip
    text_of = json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text_of.encode()).hexdigest()


def page(
    session: Session, *, org_id: str | None = None, before: int | None = None, limit: int = 100
) -> Sequence[AuditRow]:
    """Newest first; of one tenant, or of all."""
    query = select(AuditRow).order_by(col(AuditRow.seq).desc()).limit(limit)
    if org_id is not None:
        query = query.where(AuditRow.org_id == org_id)
    if before is not None:
        query = query.where(col(AuditRow.seq) < before)
    return session.exec(query).all()


def latest(session: Session, *, subject: str, action: str) -> AuditRow | None:
    """The newest row about this deed to this subject."""
    query = select(AuditRow).where(col(AuditRow.subject) == subject, col(AuditRow.action) == action)
    return session.exec(query.order_by(col(AuditRow.seq).desc()).limit(1)).first()


def first_broken(session: Session, *, batch: int = 1000) -> int | None:
    """The `seq` of the first row that was changed, removed or put in between; None: the chain is whole."""
    previous, seq = GENESIS, 0
    while True:
        rows = session.exec(select(AuditRow).where(col(AuditRow.seq) > seq).order_by(col(AuditRow.seq)).limit(batch))
        found = False
        for row in rows:
            found = True
            if row.seq != seq + 1 or row.previous_hash != previous or row.hash != hash_of(row):
                return seq + 1
            previous, seq = row.hash, row.seq
        if not found:
            return None
