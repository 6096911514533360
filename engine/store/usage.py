"""Queries about usage intervals: for how long which replica is billed. Sums are in `billing/rating.py`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import and_, update
from sqlmodel import Session, col, select

from engine.store.tables import UsageIntervalRow


def insert(session: Session, row: UsageIntervalRow) -> bool:
    """Begin to bill a replica; False (and nothing written) when this interval exists or another one is open."""
    known = [r for r in for_deployment(session, row.deployment_id) if r.replica == row.replica]
    if any(r.ended_at is None or r.started_at == row.started_at for r in known):
        return False
    session.add(row)
    session.flush()
    return True


def close(session: Session, deployment_id: str, replica: str, ended_at: datetime) -> bool:
    """Stop billing a replica; never before it began. False when nothing was open."""
    open_rows = [r for r in open_for_deployment(session, deployment_id) if r.replica == replica]
    for row in open_rows:
        end = max(ended_at, row.started_at)
        still_open = and_(col(UsageIntervalRow.id) == row.id, col(UsageIntervalRow.ended_at).is_(None))
        session.connection().execute(update(UsageIntervalRow).where(still_open).values(ended_at=end))
    return bool(open_rows)


def open_for_deployment(session: Session, deployment_id: str) -> Sequence[UsageIntervalRow]:
    """Intervals that still run, by replica name."""
    query = select(UsageIntervalRow).where(
        UsageIntervalRow.deployment_id == deployment_id, col(UsageIntervalRow.ended_at).is_(None)
    )
    return session.exec(query.order_by(col(UsageIntervalRow.replica))).all()


def for_deployment(session: Session, deployment_id: str) -> Sequence[UsageIntervalRow]:
    """All intervals of a deployment, oldest first."""
    query = select(UsageIntervalRow).where(UsageIntervalRow.deployment_id == deployment_id)
    return session.exec(query.order_by(col(UsageIntervalRow.started_at), col(UsageIntervalRow.replica))).all()
