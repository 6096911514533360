"""Queries about subscriptions to the events of deployments."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlmodel import Session, col, select

from engine.store.webhook_tables import SubscriptionRow


def insert(session: Session, row: SubscriptionRow) -> SubscriptionRow:
    session.add(row)
    session.flush()
    return row


def of_deployment(session: Session, deployment_id: str) -> Sequence[SubscriptionRow]:
    """Those that hold, oldest first."""
    query = select(SubscriptionRow).where(
        SubscriptionRow.deployment_id == deployment_id, col(SubscriptionRow.deleted_at).is_(None)
    )
    return session.exec(query.order_by(col(SubscriptionRow.created_at), col(SubscriptionRow.id))).all()


def get(session: Session, subscription_id: str, *, deployment_id: str) -> SubscriptionRow | None:
    """One that holds, of this deployment."""
    row = session.get(SubscriptionRow, subscription_id)
    return None if row is None or row.deleted_at is not None or row.deployment_id != deployment_id else row


def end(session: Session, row: SubscriptionRow, now: datetime) -> None:
    """Nothing more is sent there; what is being sent goes on."""
    row.deleted_at = now
    session.add(row)
    session.flush()
