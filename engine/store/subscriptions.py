"""Queries about subscriptions to the events of deployments. What is sent to them is `webhooks.py`'s."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import func
from sqlmodel import Session, col, select

from engine.store.tables import DeploymentRow
from engine.store.webhook_tables import SubscriptionRow


def insert(session: Session, row: SubscriptionRow) -> SubscriptionRow:
    session.add(row)
    session.flush()
    return row


def count(session: Session, deployment_id: str) -> int:
    """How many hold. The deployment is locked: whoever counts before an insert counts alone."""
    session.exec(select(DeploymentRow.id).where(DeploymentRow.id == deployment_id).with_for_update()).first()
    return session.exec(select(func.count()).select_from(SubscriptionRow).where(*_holding(deployment_id))).one()


def of_deployment(session: Session, deployment_id: str) -> Sequence[SubscriptionRow]:
    """Those that hold, oldest first."""
    query = select(SubscriptionRow).where(*_holding(deployment_id))
    return session.exec(query.order_by(col(SubscriptionRow.created_at), col(SubscriptionRow.id))).all()


def locked(session: Session, deployment_id: str) -> Sequence[SubscriptionRow]:
    """`of_deployment`, held until the transaction ends: messages to each get their places one after the other."""
    query = select(SubscriptionRow).where(*_holding(deployment_id)).order_by(col(SubscriptionRow.id))
    return session.exec(query.with_for_update().execution_options(populate_existing=True)).all()


def get(session: Session, subscription_id: str, *, deployment_id: str, lock: bool = False) -> SubscriptionRow | None:
    """One that holds, of this deployment."""
    query = select(SubscriptionRow).where(SubscriptionRow.id == subscription_id, *_holding(deployment_id))
    query = query.execution_options(populate_existing=True)
    return session.exec(query.with_for_update() if lock else query).one_or_none()


def by_id(session: Session, subscription_id: str, *, lock: bool = False) -> SubscriptionRow | None:
    """One that holds, whosever it is."""
    row = session.get(SubscriptionRow, subscription_id, populate_existing=True, with_for_update=lock)
    return row if row is not None and row.deleted_at is None else None


def end(session: Session, row: SubscriptionRow, now: datetime) -> None:
    """Nothing more is told to it."""
    row.deleted_at = now
    session.add(row)
    session.flush()


def _holding(deployment_id: str) -> tuple[bool, bool]:
    return SubscriptionRow.deployment_id == deployment_id, col(SubscriptionRow.deleted_at).is_(None)  # type: ignore[return-value]
