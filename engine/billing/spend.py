"""Where an organisation stands with its money: fine, warned, in its grace period, drained. Drains and sends nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from sqlalchemy import select
from sqlmodel import Session, col

from engine.billing.meter import interval_of
from engine.billing.rating import accrued_microdollars
from engine.model.errors import InsufficientCredit
from engine.model.ledger import Balance, Scopes
from engine.model.money import to_microdollars, to_usd
from engine.store import audit, budgets, changes, ledger, settlements
from engine.store.database import Database
from engine.store.ledger_tables import SpendStateRow

GRACE = timedelta(hours=1)
"""How long running work goes on after the balance reached zero: time to read the warning and to pay."""

WARN_AHEAD = timedelta(hours=24)
"""A warning is due once the balance lasts for less than this."""


class SpendState(StrEnum):
    """What an organisation's balance means for its running work. New work asks `require_funds`."""

    OK = "ok"
    WARNED = "warned"  # at the present rate the balance ends within a day
    GRACE = "grace"  # it has ended; running work goes on for a while
    DRAINED = "drained"  # running work is to be drained


@dataclass(frozen=True)
class Standing:
    """A decision about one organisation.

    Attributes:
        empty_since: when the balance was first seen empty; None while it is not.
        lasts_until: when the present rate will have used it up; None: nothing runs, or it is never refused.
        drains_at: when running work will be drained unless money comes in.
    """

    state: SpendState
    empty_since: datetime | None = None
    lasts_until: datetime | None = None
    drains_at: datetime | None = None


@dataclass(frozen=True)
class Change:
    """An organisation's standing moved: whoever warns or drains acts on this, and reads `standing_of` to be sure."""

    org_id: str
    before: SpendState
    after: Standing


Tell = Callable[[Session, Change], None]


def decide(
    balance: Balance,
    *,
    hourly_usd: Decimal,
    empty_since: datetime | None,
    now: datetime,
    grace: timedelta = GRACE,
    accrued: int = 0,
) -> Standing:
    """What the balance means for running work.

    Money that is held still runs what it was held for, so it counts here; for new work it does not. A clock that went
    back neither ends nor lengthens a grace period: it ends `grace` after `empty_since`.

    Args:
        accrued: what runs has used since the last posting.
    """
    if balance.credit_limit is None:
        return Standing(SpendState.OK)
    funds = balance.wallet + balance.held + balance.credit_limit - balance.owed - accrued
    if funds > 0:
        lasts_until = _lasts_until(funds, hourly_usd, now)
        is_short = lasts_until is not None and lasts_until < now + WARN_AHEAD
        return Standing(SpendState.WARNED if is_short else SpendState.OK, None, lasts_until)
    if empty_since is None and not hourly_usd and not balance.owed:
        return Standing(SpendState.OK)  # a new organisation that runs nothing has nothing to be warned of
    since = empty_since or now
    state = SpendState.DRAINED if now - since >= grace else SpendState.GRACE
    return Standing(state, since, since, since + grace)


def _lasts_until(funds: int, hourly_usd: Decimal, now: datetime) -> datetime | None:
    hourly = to_microdollars(hourly_usd)
    if hourly <= 0 or funds // hourly > 24 * 366:
        return None
    return now + timedelta(hours=1) * (funds / hourly)


def require_funds(
    session: Session, org_id: str, microdollars: int = 1, *, scopes: Scopes | None = None, now: datetime | None = None
) -> Balance:
    """Let new work begin only where there is money for it.

    Args:
        microdollars: what it will cost at least; a hold afterwards makes sure of it.
        scopes: refuse also where one of their budgets has nothing left at `now`.

    Raises:
        InsufficientCredit: the balance is used up, or does not cover the amount.
        BudgetExceeded: a budget is used up.
        NotFound: no such organisation.
    """
    balance = ledger.balance(session, org_id)
    available = balance.available
    if available is not None and available < max(1, microdollars):
        raise _refusal(balance, max(1, microdollars))
    if scopes is not None and now is not None:
        for budget in budgets.exhausted(session, scopes, now):
            raise budgets.refusal(session, budget, max(1, microdollars), now)
    return balance


def _refusal(balance: Balance, microdollars: int) -> InsufficientCredit:
    available = balance.available or 0
    if available:
        return ledger.insufficient(microdollars, available)
    owed = f" and ${to_usd(balance.owed):f} is owed" if balance.owed else ""
    return InsufficientCredit(
        f"your organisation's balance is used up{owed}: nothing new is started until credit is added under Billing; "
        "what runs is drained after the grace period",
        needed_microdollars=microdollars,
        available_microdollars=0,
        owed_microdollars=balance.owed,
    )


def standing_of(session: Session, org_id: str, now: datetime, *, grace: timedelta = GRACE) -> Standing:
    """An organisation's standing, from its balance now and its recorded state."""
    row = session.get(SpendStateRow, org_id)
    rates = {rate.org_id: rate.hourly_usd for rate in settlements.open_rates(session)}
    return decide(
        ledger.balance(session, org_id), hourly_usd=rates.get(org_id, Decimal(0)),
        empty_since=row.empty_since if row else None, now=now, grace=grace, accrued=_accrued(session, org_id, now),
    )  # fmt: skip


def silent(session: Session, change: Change) -> None:
    """Tells nobody."""


def observe(
    database: Database,
    now: datetime,
    *,
    grace: timedelta = GRACE,
    guard: Callable[[Session], None] = lambda _: None,
    tell: Tell = silent,
) -> list[Change]:
    """Record the standing of everybody who runs something or is not fine; what changed, with an audit row each.

    Args:
        tell: called with every change, in its transaction: a warning is sent if and only if the change is recorded.
    """
    with database.read() as session:
        rates = {rate.org_id: rate.hourly_usd for rate in settlements.open_rates(session)}
        recorded = select(col(SpendStateRow.org_id)).where(col(SpendStateRow.state) != SpendState.OK.value)
        concerned = sorted(rates.keys() | set(session.connection().execute(recorded).scalars()))
    moved: list[Change] = []
    for org_id in concerned:
        with database.write() as session:
            change = _record(session, org_id, rates.get(org_id, Decimal(0)), now, grace)
            if change:
                tell(session, change)
            guard(session)
        moved += [change] if change else []
    return moved


def _accrued(session: Session, org_id: str, now: datetime) -> int:
    """What an organisation's running intervals have used and was not posted yet: postings are hourly, money is not."""
    running = settlements.running(session, org_id)
    return sum(accrued_microdollars(interval_of(row), now) - posted for row, posted in running)


def _record(session: Session, org_id: str, hourly_usd: Decimal, now: datetime, grace: timedelta) -> Change | None:
    row = session.get(SpendStateRow, org_id, with_for_update=True)
    since = row.empty_since if row else None
    standing = decide(
        ledger.balance(session, org_id), hourly_usd=hourly_usd, empty_since=since, now=now, grace=grace,
        accrued=_accrued(session, org_id, now),
    )  # fmt: skip
    before = SpendState(row.state) if row else SpendState.OK
    if row is None:
        if standing.state is SpendState.OK:
            return None
        row = SpendStateRow(org_id=org_id, changed_at=now)
        session.add(row)
    row.empty_since = standing.empty_since
    if standing.state is before:
        return None
    row.state, row.changed_at = standing.state.value, now
    changes.record(session, changes.ORG, org_id, now)
    audit.record(
        session, at=now, actor="system:billing", action="org.spend_state_changed", subject=org_id, org_id=org_id,
        details={"from": before.value, "to": standing.state.value},
    )  # fmt: skip
    return Change(org_id, before, standing)
