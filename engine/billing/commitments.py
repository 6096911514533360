"""Agreed discounts: what an organisation uses above so many dollars a month costs a percentage less.

Given as the month goes: each pass posts the difference between what is due for the month's usage so far and what was
given already, so it is right whenever usage arrives, and the same however often it is worked out. Months are UTC's.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal

from sqlmodel import Session

from engine.model.errors import InvalidSpec
from engine.model.ledger import AccountKind, Posting, Reason, Source, SourceKind, Transaction
from engine.model.money import to_usd
from engine.store import commitments, ledger
from engine.store.database import Database
from engine.store.ledger_tables import CommitmentMonthRow, CommitmentRow

EVERY = timedelta(hours=1)
"""How often a month is added up; usage is posted by the hour anyway."""

LATE = timedelta(days=7)
"""So long after its end a month is still added up: usage may arrive late."""

ACTOR = "system:billing"


def agree(
    session: Session, org_id: str, *, above_microdollars: int, percent: Decimal, actor: str, now: datetime
) -> CommitmentRow:
    """Set what an organisation gets from this month on; replaces what was agreed before.

    Raises:
        InvalidSpec: a negative threshold, or not a percentage.
    """
    if above_microdollars < 0:
        raise InvalidSpec("the monthly spend a discount begins at is zero or more")
    if not percent.is_finite() or not 0 < percent <= 100 or percent != percent.quantize(Decimal("0.01")):
        raise InvalidSpec(f"a discount is above 0 and at most 100 percent, with two decimals at most, not {percent}")
    row = CommitmentRow(
        org_id=org_id, above_microdollars=above_microdollars, percent=percent, since=_month(now)[0], agreed_by=actor
    )
    return commitments.put(session, row)


def end(session: Session, org_id: str, *, now: datetime) -> bool:
    """End what was agreed with this month's end; False: there is nothing to end."""
    row = commitments.get(session, org_id)
    if row is None or row.ended_at is not None:
        return False
    row.ended_at = _month(now)[1]
    commitments.put(session, row)
    return True


def due(spent: int, above: int, percent: Decimal) -> int:
    """The discount in micro-dollars on a month's usage, rounded once, half to even. Pure."""
    return int((Decimal(max(0, spent - above)) * percent / 100).to_integral_value(ROUND_HALF_EVEN))


def give(database: Database, now: datetime, *, guard: Callable[[Session], None] = lambda _: None) -> int:
    """Bring every agreed discount up to date; returns how many postings that took."""
    with database.read() as session:
        living = commitments.living(session, _month(now - LATE)[0])
        agreed = [(row.org_id, month) for row in living for month in _open(row, now)]
    posted = 0
    for org_id, (start, end_) in agreed:
        with database.write() as session:
            posted += _give_month(session, org_id, start, end_, now)
            guard(session)
    return posted


def _give_month(session: Session, org_id: str, start: datetime, end_: datetime, now: datetime) -> int:
    month = start.strftime("%Y-%m")
    kept = commitments.month_of(session, org_id, month)
    if kept is not None and kept.summed_at > min(now - EVERY, end_ + LATE):
        return 0
    ledger.lock(session, [org_id])  # usage posted meanwhile waits: it is in the next sum
    row = commitments.get(session, org_id)
    if row is None:
        return 0
    holds = row.ended_at is None or start < row.ended_at
    spent = commitments.spent(session, org_id, start, end_)
    total = due(spent, row.above_microdollars, row.percent) if holds else 0
    kept = kept or CommitmentMonthRow(org_id=org_id, month=month, spent=0, given=0, summed_at=now)
    more = total - kept.given
    kept.spent, kept.given, kept.summed_at = spent, total, now
    if more:
        kept.postings += 1
        ledger.post(session, _transaction(row, month, kept.postings, more, min(now, end_)), now=now)
    commitments.put_month(session, kept)
    return int(bool(more))


def _transaction(row: CommitmentRow, month: str, number: int, more: int, at: datetime) -> Transaction:
    return Transaction(
        key=f"commitment/{row.org_id}/{month}/{number}",
        org_id=row.org_id,
        reason=Reason.DISCOUNT,
        source=Source(SourceKind.COMMITMENT, f"{row.org_id}/{month}"),
        postings=(Posting(AccountKind.WALLET, more), Posting(AccountKind.REVENUE, -more)),
        effective_at=at,
        actor=ACTOR,
        may_owe=True,
        description=f"{row.percent.normalize():f} % on what {month} costs above ${to_usd(row.above_microdollars):f}",
    )


def _open(row: CommitmentRow, now: datetime) -> list[tuple[datetime, datetime]]:
    """The months of an agreement that are still added up."""
    months = [_month(now - LATE), _month(now)] if now - LATE < _month(now)[0] else [_month(now)]
    return [month for month in months if month[0] >= row.since]


def _month(at: datetime) -> tuple[datetime, datetime]:
    """The UTC month a moment is in: its beginning and the next one's."""
    start = at.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return start, (start + timedelta(days=32)).replace(day=1)
