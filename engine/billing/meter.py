"""From usage intervals to the ledger: what accrued is posted every UTC hour and at an interval's end.

Opening and closing of intervals is decided by the reconcilers, not here; a price is frozen in the interval's row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import ROUND_CEILING, Decimal

from sqlmodel import Session

from engine.billing import rating
from engine.billing.rating import Interval, cost_usd
from engine.model.errors import NotFound
from engine.model.ledger import (
    AccountKind,
    HoldState,
    Posting,
    Reason,
    Scopes,
    Source,
    SourceKind,
    Transaction,
)
from engine.model.money import MICRODOLLARS
from engine.store import budgets, holds, ledger, owners, settlements, usage
from engine.store.database import Database
from engine.store.holds import Hold
from engine.store.ledger_tables import HoldRow
from engine.store.owners import Owner
from engine.store.tables import UsageIntervalRow

ACTOR = "system:billing"
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class Settled:
    """What one pass over the intervals did."""

    intervals: int = 0
    transactions: int = 0
    microdollars: int = 0


def deployment_cost(session: Session, deployment_id: str, now: datetime) -> Decimal:
    """What a deployment cost so far, in dollars: the ledger's amount for the same moment."""
    return cost_usd([interval_of(row) for row in usage.for_deployment(session, deployment_id)], now)


def interval_of(row: UsageIntervalRow) -> Interval:
    """The row as its value."""
    return Interval(row.replica, Decimal(row.hourly_rate_usd), row.started_at, row.ended_at)


def scopes_of(row: Owner) -> Scopes:
    """Whose budgets count what an owner costs: its own, and those of the account and the key that asked for it."""
    return Scopes(row.org_id, row.created_by, row.created_with, row.id)


def settle_usage(database: Database, now: datetime, *, guard: Callable[[Session], None] = lambda _: None) -> Settled:
    """Post what every interval has accrued and not been charged for; each interval is one transaction.

    Run it as often as you like, from as many processes as you like, with any clock: an hour is posted once.

    Args:
        guard: called in every transaction before its end; raises when this process may not write any more.
    """
    with database.read() as session:
        waiting = settlements.unsettled(session, now, rating.floor_hour(now))
    transactions = microdollars = 0
    for interval_id in waiting:
        with database.write() as session:
            amounts = settle_interval(session, interval_id, now)
            guard(session)
        transactions, microdollars = transactions + len(amounts), microdollars + sum(amounts)
    return Settled(len(waiting), transactions, microdollars)


def settle_interval(session: Session, interval_id: str, now: datetime) -> list[int]:
    """Post what one interval has accrued, hour by hour; the micro-dollars posted, [n], n ≥ 0.

    Raises:
        NotFound: no such interval.
    """
    found = settlements.lock(session, interval_id)
    if found is None:
        raise NotFound(f"no usage interval {interval_id}")
    row, settled = found
    if settled.is_final:
        return []
    dues = rating.due(
        interval_of(row), posted=settled.posted_microdollars, settled_until=settled.settled_until, now=now
    )
    transactions, moves = _charges(session, row, settled.postings, dues, now)
    budgets.apply(session, moves)
    ledger.post_all(session, transactions, now=now)
    counted = [due.microdollars for due in dues if due.microdollars]
    settled.posted_microdollars += sum(counted)
    settled.postings += len(counted)
    settled.is_final = _is_over(row, now)
    if dues:
        settled.settled_until = dues[-1].until
    session.flush()
    return counted


Moves = dict[budgets.Reservation, tuple[int, int]]


def _is_over(row: UsageIntervalRow, now: datetime) -> bool:
    return row.ended_at is not None and row.ended_at <= now


def _charges(
    session: Session, row: UsageIntervalRow, number: int, dues: Sequence[rating.Due], now: datetime
) -> tuple[list[Transaction], Moves]:
    """What to post and what to count in budgets: out of the pre-charge while there is one, then out of the wallet."""
    hold = holds.lock(session, precharge_id(row.id))
    if hold is not None and hold.state != HoldState.OPEN:
        hold = None
    left = hold.amount - hold.drawn if hold else 0
    transactions: list[Transaction] = []
    moves: Moves = {}
    made = owners.get(session, row.deployment_id)
    scopes = scopes_of(made) if made else Scopes(row.org_id, deployment_id=row.deployment_id)
    for due in dues:
        if not due.microdollars:
            continue
        drawn = min(max(0, due.microdollars), left)
        left -= drawn
        transactions.append(_transaction(row, number + len(transactions), due, drawn))
        windows = budgets.windows(session, scopes, due.until - _MICROSECOND)  # midnight is still that day
        if drawn and hold:
            reserved = holds.draw(session, hold.id, drawn)
            _add(moves, reserved, -drawn, drawn)
            known = {budget for budget, _ in reserved}
            _add(moves, [w for w in windows if w[0] not in known], 0, drawn)  # budgets made since the hour was held
        if measured := due.microdollars - drawn:
            _add(moves, windows, 0, measured)
    if hold and _is_over(row, now):
        rest, given_back = holds.close_drawn(session, holds.get(session, hold.id), now=now)
        _add(moves, holds.reserved_by(hold), -rest, 0)
        transactions += [given_back] if given_back else []
    return transactions, moves


def _add(moves: Moves, windows: Iterable[budgets.Reservation], reserved: int, spent: int) -> None:
    for this in windows:
        before = moves.get(this, (0, 0))
        moves[this] = (before[0] + reserved, before[1] + spent)


def _transaction(row: UsageIntervalRow, number: int, due: rating.Due, from_hold: int) -> Transaction:
    amount = due.microdollars
    lines = {AccountKind.REVENUE: amount, AccountKind.HELD: -from_hold, AccountKind.WALLET: from_hold - amount}
    return Transaction(
        key=f"interval/{row.id}/{number}",
        org_id=row.org_id,
        reason=Reason.USAGE if amount > 0 else Reason.USAGE_CORRECTION,
        source=Source(SourceKind.INTERVAL, row.id),
        postings=tuple(Posting(account, moved) for account, moved in lines.items() if moved),
        effective_at=due.until,
        actor=ACTOR,
        may_owe=True,
        description=f"{row.gpu_type}, {row.deployment_id} {row.replica} until {due.until:%Y-%m-%d %H:%M:%S} UTC",
    )


# Pre-charges: the first hour of a pod is there before it starts


def precharge_id(interval_id: str) -> str:
    """The hold that pays an interval's first hour."""
    return f"precharge/{interval_id}"


def precharge(
    session: Session, *, interval_id: str, scopes: Scopes, hourly_rate_usd: Decimal, now: datetime, hours: int = 1
) -> HoldRow:
    """Set the first hour's price aside; the interval's postings use it up first, and its end gives back the rest.

    Raises:
        InsufficientCredit: the balance does not cover it.
        BudgetExceeded: a budget does not.
    """
    amount = int((hourly_rate_usd * hours * MICRODOLLARS).to_integral_value(rounding=ROUND_CEILING))
    source = Source(SourceKind.INTERVAL, interval_id)
    return holds.open_hold(session, Hold(precharge_id(interval_id), scopes, amount, source), now=now)


def release_precharge(session: Session, interval_id: str, *, now: datetime) -> HoldRow:
    """Give a pre-charge back when what it was for never started. Raises as `holds.release`."""
    return holds.release(session, precharge_id(interval_id), now=now)
