"""Hard budgets: limits, and what is reserved and spent of them in each period. Holds no money; that is `holds`.

A reservation is one conditional UPDATE per budget, so no interleaving passes a limit; a request's budgets are taken in
one savepoint, so a refusal by one consumes none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from sqlalchemy import Table, and_, or_, select, update
from sqlmodel import Session, col

from engine.model.errors import BudgetExceeded, Conflict, InvalidSpec, NotFound
from engine.model.ledger import LARGEST_MICRODOLLARS, BudgetScope, Period, Scopes, window
from engine.model.money import to_usd
from engine.store.ledger import ignoring_known, whole
from engine.store.ledger_tables import BudgetRow, BudgetWindowRow

Reservation = tuple[str, datetime]
"""A budget's id and the start of the period that was reserved in."""

_WINDOWS: Table = BudgetWindowRow.__table__  # type: ignore[attr-defined]
_BUDGETS: Table = BudgetRow.__table__  # type: ignore[attr-defined]


def put(session: Session, row: BudgetRow) -> BudgetRow:
    """Set a scope's limit for a period: a new budget, or the new limit of the one that is there.

    Raises:
        InvalidSpec: unknown scope or period, or a limit that cannot be.
    """
    if row.scope not in set(BudgetScope) or row.period not in set(Period):
        scopes, periods = ", ".join(BudgetScope), ", ".join(Period)
        raise InvalidSpec(f"a budget is for one of {scopes}, per one of {periods}", scope=row.scope, period=row.period)
    if not 0 <= row.limit_microdollars <= LARGEST_MICRODOLLARS:
        raise InvalidSpec("a budget's limit is zero or more", limit_microdollars=row.limit_microdollars)
    if row.scope == BudgetScope.ORG and row.scope_id != row.org_id:
        raise InvalidSpec("an organisation's budget names that organisation")
    session.flush()
    values = row.model_dump()
    connection = session.connection()
    inserted = connection.execute(ignoring_known(session, _BUDGETS).returning(_BUDGETS.c.id), [values]).first()
    if inserted is None:
        there = _BUDGETS.c
        same = and_(
            there.org_id == row.org_id, there.scope == row.scope, there.scope_id == row.scope_id,
            there.period == row.period, there.removed_at.is_(None),
        )  # fmt: skip
        new = {"limit_microdollars": row.limit_microdollars, "updated_at": row.updated_at}
        inserted = connection.execute(update(_BUDGETS).where(same).values(**new).returning(there.id)).first()
        if inserted is None:
            raise Conflict(f"there is another budget with the id {row.id}")
    return session.get_one(BudgetRow, inserted[0], populate_existing=True)


def get(session: Session, budget_id: str, *, org_id: str) -> BudgetRow:
    """One budget of this organisation.

    Raises:
        NotFound: no such budget here.
    """
    row = session.get(BudgetRow, budget_id)
    if row is None or row.org_id != org_id or row.removed_at is not None:
        raise NotFound(f"no budget {budget_id}")
    return row


def remove(session: Session, budget_id: str, *, org_id: str, now: datetime) -> BudgetRow:
    """Forget a limit; what it counted stays. As `get`."""
    row = get(session, budget_id, org_id=org_id)
    row.removed_at = row.updated_at = now
    session.flush()
    return row


def list_for_org(session: Session, org_id: str) -> Sequence[BudgetRow]:
    """The limits that hold, by scope."""
    query = select(BudgetRow).where(col(BudgetRow.org_id) == org_id, col(BudgetRow.removed_at).is_(None))
    return session.execute(query.order_by(col(BudgetRow.scope), col(BudgetRow.scope_id))).scalars().all()


def usage(session: Session, budget: BudgetRow, now: datetime) -> BudgetWindowRow:
    """What is reserved and spent in the period that `now` lies in."""
    start, _ = window(Period(budget.period), now)
    row = session.get(BudgetWindowRow, (budget.id, start))
    return row or BudgetWindowRow(budget_id=budget.id, started_at=start, reserved=0, spent=0)


def orgs_with_budgets(session: Session, org_ids: Iterable[str]) -> set[str]:
    """Of these organisations, those that have any budget: most have none, and cost nothing more."""
    b = BudgetRow
    query = select(col(b.org_id)).where(col(b.org_id).in_(sorted(set(org_ids))), col(b.removed_at).is_(None)).distinct()
    return set(session.connection().execute(query).scalars())


def applying(session: Session, scopes: Scopes) -> Sequence[BudgetRow]:
    """The budgets of all these scopes, by id: everybody takes them in that order."""
    b = BudgetRow
    wanted = [and_(col(b.scope) == scope.value, col(b.scope_id) == id) for scope, id in scopes.ids().items()]
    query = select(b).where(col(b.org_id) == scopes.org_id, col(b.removed_at).is_(None), or_(*wanted))
    return session.execute(query.order_by(col(b.id))).scalars().all()


def reserve(session: Session, scopes: Scopes, microdollars: int, now: datetime) -> list[Reservation]:
    """Take an amount out of every budget that applies, or out of none.

    Raises:
        BudgetExceeded: one would be passed; the message names it.
    """
    reserved: list[Reservation] = []
    with whole(session):
        for budget in applying(session, scopes):
            start, end = window(Period(budget.period), now)
            _open(session, [(budget.id, start)])
            w = _WINDOWS.c
            limit = select(_BUDGETS.c.limit_microdollars).where(_BUDGETS.c.id == budget.id).scalar_subquery()
            fits = and_(w.budget_id == budget.id, w.started_at == start, w.spent + w.reserved + microdollars <= limit)
            taken = session.connection().execute(
                update(_WINDOWS).where(fits).values(reserved=w.reserved + microdollars)
            )
            if taken.rowcount == 0:
                raise exceeded(budget, usage(session, budget, now), microdollars, end)
            reserved.append((budget.id, start))
    return reserved


def settle(session: Session, reserved: Sequence[Reservation], held: int, spent: int) -> None:
    """Give a reservation back, and count what was really spent in the period it was reserved in."""
    apply(session, {reservation: (-held, spent) for reservation in reserved})


def spend(session: Session, scopes: Scopes, microdollars: int, at: datetime) -> None:
    """Count what was measured and not reserved. It is spent whatever the limit says; new work then meets the limit."""
    apply(session, {reservation: (0, microdollars) for reservation in windows(session, scopes, at)})


def windows(session: Session, scopes: Scopes, at: datetime) -> list[Reservation]:
    """The budgets that apply, each with its period."""
    return [(b.id, window(Period(b.period), at)[0]) for b in applying(session, scopes)]


def apply(session: Session, moves: Mapping[Reservation, tuple[int, int]]) -> None:
    """Add to what is reserved and what is spent, budget after budget in the one order that all writers keep."""
    changes = sorted((this, move) for this, move in moves.items() if any(move))
    _open(session, [this for this, _ in changes])
    w = _WINDOWS.c
    for (budget_id, start), (reserved, spent) in changes:
        this = and_(w.budget_id == budget_id, w.started_at == start)
        values = {"reserved": w.reserved + reserved, "spent": w.spent + spent}
        session.connection().execute(update(_WINDOWS).where(this).values(**values))


def exhausted(session: Session, scopes: Scopes, now: datetime) -> list[BudgetRow]:
    """The budgets of these scopes with nothing left."""
    return [
        budget
        for budget in applying(session, scopes)
        if (row := usage(session, budget, now)).spent + row.reserved >= budget.limit_microdollars
    ]


def refusal(session: Session, budget: BudgetRow, microdollars: int, now: datetime) -> BudgetExceeded:
    """Why so much more would pass this budget."""
    _, end = window(Period(budget.period), now)
    return exceeded(budget, usage(session, budget, now), microdollars, end)


def exceeded(budget: BudgetRow, used: BudgetWindowRow, microdollars: int, end: datetime | None) -> BudgetExceeded:
    """The refusal: which budget, what is left of it, and until when."""
    left = max(0, budget.limit_microdollars - used.spent - used.reserved)
    per = "in all" if budget.period == Period.TOTAL else f"per {budget.period}"
    until = f", whole again at {end:%Y-%m-%d %H:%M} UTC" if end else ""
    return BudgetExceeded(
        f"the budget {budget.id} of {budget.scope} {budget.scope_id} (${to_usd(budget.limit_microdollars):f} {per}) "
        f"has ${to_usd(left):f} left and this needs ${to_usd(microdollars):f}{until}: raise the budget or wait",
        budget_id=budget.id, scope=budget.scope, scope_id=budget.scope_id, period=budget.period,
        limit_microdollars=budget.limit_microdollars, spent_microdollars=used.spent,
        reserved_microdollars=used.reserved, needed_microdollars=microdollars,
        resets_at=end.isoformat() if end else None,
    )  # fmt: skip


def _open(session: Session, windows: Sequence[Reservation]) -> None:
    """Make the rows of these periods where they are new."""
    rows = [{"budget_id": id, "started_at": start, "reserved": 0, "spent": 0} for id, start in windows]
    if rows:
        session.connection().execute(ignoring_known(session, _WINDOWS), rows)
