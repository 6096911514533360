"""Reads what was measured for rating. Opening and closing of intervals is decided by the reconcilers, not here."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from sqlmodel import Session

from engine.billing.rating import Interval, cost_usd
from engine.store import usage
from engine.store.tables import UsageIntervalRow


def deployment_cost(session: Session, deployment_id: str, now: datetime) -> Decimal:
    """What a deployment cost so far, in dollars."""
    return cost_usd([interval_of(row) for row in usage.for_deployment(session, deployment_id)], now)


def interval_of(row: UsageIntervalRow) -> Interval:
    """The row as its value."""
    return Interval(row.replica, Decimal(row.hourly_rate_usd), row.started_at, row.ended_at)
