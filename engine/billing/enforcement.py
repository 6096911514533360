"""Ends running work that nobody pays for, and lets it run again: used-up balances and used-up hard budgets.

Level-triggered: compares who is out of money with who is suspended, so a pass that died is made good by the next.
Suspending is an edit of the deployment, handler or pod; machines go by its reconciler.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from math import ceil

from sqlmodel import Session, col, select, union

from engine.billing.meter import interval_of, precharge_id, scopes_of
from engine.billing.rating import MICROSECONDS_PER_HOUR, Interval, accrued_microdollars
from engine.billing.spend import SpendState
from engine.model.ledger import BudgetScope, HoldState
from engine.model.money import MICRODOLLARS, to_usd
from engine.store import audit, budgets, changes, deployments, holds, owners, settlements, usage
from engine.store.database import Database
from engine.store.ledger_tables import BudgetRow, HoldRow, SpendStateRow
from engine.store.owners import Owner
from engine.store.pod_tables import PodRow
from engine.store.tables import DeploymentRow, UsageIntervalRow

ACTOR = "system:billing"
BALANCE_REASON = "your organisation's balance is used up and its grace period is over; add credit and it comes back"
RESUME_SECONDS = 60
"""A budget has to pay for so long a run before it ends a suspension: less would go to and fro."""


@dataclass(frozen=True)
class Suspension:
    """What a deployment is to be suspended for, and until when it is billed."""

    reason: str
    billed_until: datetime


def enforce(database: Database, now: datetime, *, guard: Callable[[Session], None]) -> list[str]:
    """One pass over everybody concerned; ids of the deployments that were suspended or resumed.

    Args:
        guard: called in every writing transaction before its end; raises when another process leads.
    """
    with database.read() as session:
        concerned = _concerned(session)
    changed: list[str] = []
    for org_id in concerned:
        with database.write() as session:
            changed += _enforce(session, org_id, now)
            guard(session)
    return changed


def exhausted_at(
    limit: int, used: int, running: Sequence[tuple[Interval, int]], now: datetime
) -> datetime | None:  # fmt: skip
    """The moment at which a limit was used up; None: it is not.

    Args:
        used: micro-dollars posted and reserved.
        running: intervals that go on, each with what is posted of it.
    """
    accrued = sum(accrued_microdollars(interval, now) - posted for interval, posted in running)
    over = used + accrued - limit
    if over < 0:
        return None
    hourly = sum((interval.hourly_rate_usd for interval, _ in running), Decimal(0)) * MICRODOLLARS
    late = timedelta(microseconds=ceil(over * MICROSECONDS_PER_HOUR / hourly)) if hourly else timedelta(0)
    return now - late


def _concerned(session: Session) -> list[str]:
    """Organisations that are out of money, have a budget, or have something suspended."""
    drained = select(SpendStateRow.org_id).where(SpendStateRow.state == SpendState.DRAINED.value)
    limited = select(BudgetRow.org_id).where(col(BudgetRow.removed_at).is_(None))
    found = {*session.connection().execute(union(drained, limited)).scalars()}
    return sorted(found.union(session.connection().execute(owners.suspended_orgs()).scalars()))


def _enforce(session: Session, org_id: str, now: datetime) -> list[str]:
    rows = [r for r in owners.living_of_org(session, org_id) if r.delete_requested_at is None]
    wanted = _suspensions(session, org_id, rows, now)
    changed: list[str] = []
    for row in rows:
        found, kind = wanted.get(row.id), owners.kind_of(row.id)
        if kind is None:
            continue
        if found is not None and row.suspended_at is None:
            done = kind.suspend(session, row.id, found.reason, now, billed_until=found.billed_until)
        elif found is None and row.suspended_at is not None:
            done = kind.resume(session, row.id, now)
        else:
            continue
        if done:
            changed.append(row.id)
            _audit(session, row, found, now)
    return changed


def _suspensions(session: Session, org_id: str, rows: Sequence[Owner], now: datetime) -> dict[str, Suspension]:
    """Deployment → why it may not run, the earliest reason first."""
    state = session.get(SpendStateRow, org_id)
    if state is not None and state.state == SpendState.DRAINED:
        return {row.id: Suspension(BALANCE_REASON, now) for row in rows}
    found: dict[str, Suspension] = {}
    for budget in budgets.list_for_org(session, org_id):
        scope = BudgetScope(budget.scope)
        concerned = [row for row in rows if scopes_of(row).ids().get(scope) == budget.scope_id]
        if concerned:
            for row_id, suspension in _over(session, budget, concerned, now).items():
                known = found.get(row_id)
                if known is None or suspension.billed_until < known.billed_until:
                    found[row_id] = suspension
    return found


def _over(
    session: Session, budget: BudgetRow, rows: Sequence[Owner], now: datetime
) -> dict[str, Suspension]:  # fmt: skip
    """The deployments that this budget does not pay any more."""
    window = budgets.usage(session, budget, now)
    used = window.spent + window.reserved
    running = [_running(session, i, budget) for row in rows for i in usage.open_for_deployment(session, row.id)]
    moment = exhausted_at(budget.limit_microdollars, used, running, now)
    per = "in all" if budget.period == "total" else f"a {budget.period}"
    reason = f"the budget {budget.id} of ${to_usd(budget.limit_microdollars):f} {per} is used up; raise it or wait"
    if moment is not None:
        return {row.id: Suspension(reason, moment) for row in rows}
    accrued = sum(accrued_microdollars(interval, now) - posted for interval, posted in running)
    left = budget.limit_microdollars - used - accrued
    short = [row for row in rows if row.suspended_at is not None and left < _cost_of_resuming(session, row)]
    return {row.id: Suspension(reason, now) for row in short}


def _running(session: Session, row: UsageIntervalRow, budget: BudgetRow) -> tuple[Interval, int]:
    """An interval with what of it the budget counts already: posted, or still reserved by its pre-charge."""
    hold = session.get(HoldRow, precharge_id(row.id))
    reserved = 0
    if hold is not None and hold.state == HoldState.OPEN and budget.id in {b for b, _ in holds.reserved_by(hold)}:
        reserved = hold.amount - hold.drawn
    return interval_of(row), settlements.posted(session, row.id) + reserved


def _cost_of_resuming(session: Session, row: Owner) -> int:
    """What `RESUME_SECONDS` of it cost, at the rate it last ran at; 1 where it never ran."""
    if isinstance(row, PodRow):
        hourly = Decimal(row.hourly_rate_usd)
    else:
        past = usage.for_deployment(session, row.id)
        copies = deployments.spec_of(row).replicas if isinstance(row, DeploymentRow) else 1
        hourly = Decimal(past[-1].hourly_rate_usd) * max(1, copies) if past else Decimal(0)
    return max(1, int(hourly * MICRODOLLARS * RESUME_SECONDS / 3600))


def _audit(session: Session, row: Owner, found: Suspension | None, now: datetime) -> None:
    action = f"{changes.kind_of(row.id)}.{'suspended' if found else 'resumed'}"
    details = {"reason": found.reason} if found else {}
    audit.record(session, at=now, actor=ACTOR, org_id=row.org_id, action=action, subject=row.id, details=details)
