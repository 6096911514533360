"""How far usage intervals and machines are posted. What is due is decided in `billing.rating`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from sqlalchemy import Table, and_, or_, select, update
from sqlmodel import Session, col

from engine.store.ledger import ignoring_known
from engine.store.ledger_tables import IntervalSettlementRow, MachineCostRow
from engine.store.tables import UsageIntervalRow

_SETTLEMENTS: Table = IntervalSettlementRow.__table__  # type: ignore[attr-defined]
_MACHINES: Table = MachineCostRow.__table__  # type: ignore[attr-defined]


class OpenRate(NamedTuple):
    """What an organisation's running intervals cost together."""

    org_id: str
    hourly_usd: Decimal


def unsettled(session: Session, now: datetime, hour: datetime) -> Sequence[str]:
    """Ids of intervals that may have something due: over and not final, or running since before this hour."""
    u, s = UsageIntervalRow, IntervalSettlementRow
    is_over = and_(col(u.ended_at).is_not(None), col(u.ended_at) <= now)
    hour_due = and_(col(u.started_at) < hour, or_(col(s.settled_until).is_(None), col(s.settled_until) < hour))
    query = (
        select(col(u.id))
        .outerjoin(IntervalSettlementRow, col(s.interval_id) == col(u.id))
        .where(or_(col(s.is_final).is_(None), col(s.is_final).is_(False)), or_(is_over, hour_due))
        .order_by(col(u.started_at), col(u.id))
    )
    return session.connection().execute(query).scalars().all()


def lock(session: Session, interval_id: str) -> tuple[UsageIntervalRow, IntervalSettlementRow] | None:
    """An interval with how far it is posted, which nobody else moves until the transaction ends."""
    interval = session.get(UsageIntervalRow, interval_id, populate_existing=True)
    if interval is None:
        return None
    fresh = {
        "interval_id": interval_id, "posted_microdollars": 0, "settled_until": interval.started_at, "postings": 0,
        "is_final": False,
    }  # fmt: skip
    session.connection().execute(ignoring_known(session, _SETTLEMENTS), [fresh])
    row = session.get_one(IntervalSettlementRow, interval_id, populate_existing=True, with_for_update=True)
    return interval, row


def posted(session: Session, interval_id: str) -> int:
    """Micro-dollars posted for an interval so far."""
    row = session.get(IntervalSettlementRow, interval_id)
    return row.posted_microdollars if row else 0


def running(session: Session, org_id: str) -> list[tuple[UsageIntervalRow, int]]:
    """An organisation's intervals that go on, each with the micro-dollars posted of it so far."""
    u, s = UsageIntervalRow, IntervalSettlementRow
    query = select(u, col(s.posted_microdollars)).outerjoin(IntervalSettlementRow, col(s.interval_id) == col(u.id))
    rows = session.execute(query.where(col(u.org_id) == org_id, col(u.ended_at).is_(None)))
    return [(interval, posted or 0) for interval, posted in rows]


def open_rates(session: Session) -> list[OpenRate]:
    """Hourly cost of what runs, by organisation; exact."""
    u = UsageIntervalRow
    rates: dict[str, Decimal] = {}
    query = select(col(u.org_id), col(u.hourly_rate_usd)).where(col(u.ended_at).is_(None))
    for org_id, rate in session.connection().execute(query):
        rates[org_id] = rates.get(org_id, Decimal(0)) + Decimal(rate)
    return [OpenRate(org_id, rate) for org_id, rate in sorted(rates.items())]


# Machines: what the clouds ask the operator for


def machine_seen(session: Session, row: MachineCostRow) -> bool:
    """Begin to count a machine's cost; False: it is known."""
    values = row.model_dump()
    inserted = session.connection().execute(ignoring_known(session, _MACHINES).returning(_MACHINES.c.id), [values])
    return inserted.first() is not None


def machine_gone(session: Session, machine_id: str, at: datetime) -> bool:
    """The cloud says it is gone: its cost ends, never before it began. False: unknown, or gone before."""
    row = session.get(MachineCostRow, machine_id, populate_existing=True, with_for_update=True)
    if row is None or row.gone_at is not None:
        return False
    m = _MACHINES.c
    end = max(at, row.started_at)
    session.connection().execute(update(_MACHINES).where(m.id == machine_id).values(gone_at=end))
    return True


def living_machines(session: Session) -> set[str]:
    """Ids of the machines that still cost."""
    query = select(col(MachineCostRow.id)).where(col(MachineCostRow.gone_at).is_(None))
    return set(session.connection().execute(query).scalars())


def unsettled_machines(session: Session, now: datetime, hour: datetime) -> Sequence[str]:
    """As `unsettled`, of machines."""
    m = MachineCostRow
    is_over = and_(col(m.gone_at).is_not(None), col(m.gone_at) <= now)
    hour_due = and_(col(m.started_at) < hour, or_(col(m.settled_until).is_(None), col(m.settled_until) < hour))
    query = select(col(m.id)).where(col(m.is_final).is_(False), or_(is_over, hour_due))
    return session.connection().execute(query.order_by(col(m.started_at), col(m.id))).scalars().all()


def lock_machine(session: Session, machine_id: str) -> MachineCostRow | None:
    """A machine's row, which nobody else moves until the transaction ends."""
    return session.get(MachineCostRow, machine_id, populate_existing=True, with_for_update=True)
