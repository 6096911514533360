"""Queries about agreed discounts and what a month's usage came to. Decides no amount: that is `billing.commitments`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import and_, func, or_
from sqlmodel import Session, col, select

from engine.model.ledger import AccountKind, SourceKind
from engine.store.ledger_tables import CommitmentMonthRow, CommitmentRow, LedgerPostingRow, LedgerTransactionRow


def put(session: Session, row: CommitmentRow) -> CommitmentRow:
    """Set or replace what was agreed with an organisation."""
    merged = session.merge(row)
    session.flush()
    return merged


def get(session: Session, org_id: str) -> CommitmentRow | None:
    return session.get(CommitmentRow, org_id)


def living(session: Session, since: datetime) -> Sequence[CommitmentRow]:
    """Agreements that hold, or held at some time since then."""
    query = select(CommitmentRow).where(or_(col(CommitmentRow.ended_at).is_(None), col(CommitmentRow.ended_at) > since))
    return session.exec(query.order_by(col(CommitmentRow.org_id))).all()


def spent(session: Session, org_id: str, start: datetime, end: datetime) -> int:
    """Micro-dollars an organisation was charged for what it used in [start, end), discounts not taken off."""
    t, p = LedgerTransactionRow, LedgerPostingRow
    of_org = and_(col(p.org_id) == org_id, col(p.kind) == AccountKind.REVENUE.value)
    within = and_(
        col(t.effective_at) >= start, col(t.effective_at) < end, col(t.source_kind) != SourceKind.COMMITMENT.value
    )
    query = select(func.coalesce(func.sum(p.amount), 0)).join(t, col(t.id) == col(p.transaction_id))
    return int(session.exec(query.where(of_org, within)).one())


def month_of(session: Session, org_id: str, month: str) -> CommitmentMonthRow | None:
    return session.get(CommitmentMonthRow, (org_id, month))


def put_month(session: Session, row: CommitmentMonthRow) -> None:
    session.add(row)
    session.flush()
