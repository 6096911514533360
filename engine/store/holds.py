"""Holds: money and budget set aside before something runs, settled when its price is known. Prices nothing.

Every hold has the caller's id, and each step is posted under a key made of it: after a crash the same call again does
what was not done and nothing twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from sqlalchemy import Table, and_, select, update
from sqlmodel import Session, col

from engine.model.errors import Conflict, InvalidSpec, NotFound
from engine.model.ledger import (
    LARGEST_MICRODOLLARS,
    AccountKind,
    HoldState,
    Overage,
    Posting,
    Reason,
    Scopes,
    Source,
    SourceKind,
    Transaction,
)
from engine.model.money import to_usd
from engine.store import budgets, ledger
from engine.store.ledger_tables import HoldRow

_HOLDS: Table = HoldRow.__table__  # type: ignore[attr-defined]
ACTOR = "system:ledger"


@dataclass(frozen=True)
class Hold:
    """What is asked for.

    Attributes:
        id: the caller's, forever: a request's, `precharge/<interval>`.
        expires_at: after which a hold that nobody settled gives its money back; None: never by itself.
    """

    id: str
    scopes: Scopes
    microdollars: int
    source: Source
    expires_at: datetime | None = None


def open_hold(session: Session, hold: Hold, *, now: datetime) -> HoldRow:
    """Set the money aside: out of every budget that applies and out of the wallet, or nothing at all.

    Raises:
        InsufficientCredit: the wallet does not cover it.
        BudgetExceeded: a budget does not.
        Conflict: the id was used for another hold.
    """
    if not 0 <= hold.microdollars <= LARGEST_MICRODOLLARS:
        raise InvalidSpec("a hold is of zero or more", microdollars=hold.microdollars)
    with ledger.whole(session):
        row = _row(hold, now)
        inserted = session.connection().execute(
            ledger.ignoring_known(session, _HOLDS).returning(_HOLDS.c.id), [row.model_dump()]
        )
        if inserted.first() is None:
            return _same(get(session, hold.id), row)
        reserved = budgets.reserve(session, hold.scopes, hold.microdollars, now)
        if hold.microdollars:
            lines = _lines({AccountKind.WALLET: -hold.microdollars, AccountKind.HELD: hold.microdollars})
            ledger.post(session, _transaction(row, "open", Reason.HOLD, lines, now), now=now)
        if reserved:
            _write(session, row.id, budgets=[[id, start.isoformat()] for id, start in reserved])
    return get(session, hold.id)


def settle(session: Session, hold_id: str, actual: int, *, now: datetime, overage: Overage = Overage.REFUSE) -> HoldRow:
    """Charge what it cost and give the rest back.

    A hold that expired meanwhile has nothing left: all of `actual` is then beyond it.

    Raises:
        Conflict: more than was held and `overage` refuses that, or the hold ended otherwise.
        NotFound: no such hold.
    """
    if not 0 <= actual <= LARGEST_MICRODOLLARS:
        raise InvalidSpec("what something cost is zero or more", microdollars=actual)
    with ledger.whole(session):
        row = _lock(session, hold_id)
        if row.state == HoldState.SETTLED and row.charged == actual:
            return row
        is_open = row.state == HoldState.OPEN
        left = row.amount if is_open else 0
        ended = row.state not in (HoldState.OPEN, HoldState.EXPIRED)
        if ended or actual < row.drawn or (actual > left and overage is Overage.REFUSE):
            raise _cannot_settle(row, actual, left)
        rest, charge = (row.amount - row.drawn if is_open else 0), actual - row.drawn
        budgets.settle(session, reserved_by(row), rest, charge)
        lines = _lines({AccountKind.HELD: -rest, AccountKind.REVENUE: charge, AccountKind.WALLET: rest - charge})
        if lines:
            ledger.post(session, _transaction(row, "settle", Reason.SETTLEMENT, lines, now, charge > rest), now=now)
        _write(session, row.id, state=HoldState.SETTLED.value, charged=actual, closed_at=now)
    return get(session, hold_id)


def draw(session: Session, hold_id: str, microdollars: int) -> list[budgets.Reservation]:
    """Count up to so much of an open hold as used up, under the caller's own posting out of `held`.

    Returns:
        What the hold has reserved of budgets: the caller settles that too, in order with its other budgets.

    Raises:
        Conflict: less than that is left.
    """
    h = _HOLDS.c
    fits = and_(h.id == hold_id, h.state == HoldState.OPEN.value, h.drawn + microdollars <= h.amount)
    values = {"drawn": h.drawn + microdollars, "charged": h.charged + microdollars}
    if session.connection().execute(update(_HOLDS).where(fits).values(**values)).rowcount == 0:
        raise Conflict(f"the hold {hold_id} has less than {microdollars} micro-dollars left")
    return reserved_by(get(session, hold_id))


def close_drawn(session: Session, row: HoldRow, *, now: datetime) -> tuple[int, Transaction | None]:
    """End a locked open hold for what was drawn from it.

    Returns:
        What is left of it and the transaction that gives that back: the caller posts it, after settling the budgets.
    """
    rest = row.amount - row.drawn
    _write(session, row.id, state=HoldState.SETTLED.value, closed_at=now)
    lines = _lines({AccountKind.HELD: -rest, AccountKind.WALLET: rest})
    return rest, _transaction(row, "settle", Reason.SETTLEMENT, lines, now) if rest else None


def lock(session: Session, hold_id: str) -> HoldRow | None:
    """A hold that nobody else changes until the transaction ends; None: there is none."""
    session.flush()
    return session.get(HoldRow, hold_id, populate_existing=True, with_for_update=True)


def release(session: Session, hold_id: str, *, now: datetime) -> HoldRow:
    """Give everything back that was not drawn; again and again if need be.

    Raises:
        Conflict: it was settled.
        NotFound: no such hold.
    """
    with ledger.whole(session):
        row = _lock(session, hold_id)
        if row.state == HoldState.SETTLED:
            raise Conflict(f"the hold {hold_id} was settled for {row.charged} micro-dollars: refund it instead")
        if row.state == HoldState.OPEN:
            _give_back(session, row, HoldState.RELEASED, Reason.RELEASE, now)
    return get(session, hold_id)


def due(session: Session, now: datetime, *, limit: int = 500) -> Sequence[str]:
    """Ids of open holds whose time is over, oldest first: each is expired in a transaction of its own."""
    h = HoldRow
    query = select(col(h.id)).where(col(h.state) == HoldState.OPEN.value, col(h.expires_at) <= now)
    return session.connection().execute(query.order_by(col(h.expires_at), col(h.id)).limit(limit)).scalars().all()


def expire(session: Session, hold_id: str, *, now: datetime) -> bool:
    """Give a hold's money back if it is open and its time is over; False: somebody was faster."""
    with ledger.whole(session):
        row = _lock(session, hold_id)
        if row.state != HoldState.OPEN or row.expires_at is None or row.expires_at > now:
            return False
        _give_back(session, row, HoldState.EXPIRED, Reason.EXPIRY, now)
    return True


def get(session: Session, hold_id: str, *, org_id: str | None = None) -> HoldRow:
    """A hold as it is now.

    Raises:
        NotFound: no such hold, or another organisation's.
    """
    row = session.get(HoldRow, hold_id, populate_existing=True)
    if row is None or org_id not in (None, row.org_id):
        raise NotFound(f"no hold {hold_id}")
    return row


def _row(hold: Hold, now: datetime) -> HoldRow:
    return HoldRow(
        id=hold.id, org_id=hold.scopes.org_id, amount=hold.microdollars, drawn=0, charged=0, state=HoldState.OPEN.value,
        source_kind=hold.source.kind.value, source_id=hold.source.id,
        scopes={name: id for name, id in asdict(hold.scopes).items() if id}, budgets=[], created_at=now,
        expires_at=hold.expires_at,
    )  # fmt: skip


def _same(stored: HoldRow, asked: HoldRow) -> HoldRow:
    compared = ("org_id", "amount", "source_kind", "source_id", "scopes")
    if any(getattr(stored, name) != getattr(asked, name) for name in compared):
        raise Conflict(f"the hold id {asked.id!r} was used for another hold: use a new one", hold_id=asked.id)
    return stored


def _lock(session: Session, hold_id: str) -> HoldRow:
    """Holds are locked before budgets, budgets before books: everywhere, so nobody waits in a circle."""
    row = lock(session, hold_id)
    if row is None:
        raise NotFound(f"no hold {hold_id}")
    return row


def _give_back(session: Session, row: HoldRow, state: HoldState, reason: Reason, now: datetime) -> None:
    rest = row.amount - row.drawn
    budgets.settle(session, reserved_by(row), rest, 0)
    if rest:
        lines = _lines({AccountKind.HELD: -rest, AccountKind.WALLET: rest})
        ledger.post(session, _transaction(row, state.value, reason, lines, now), now=now)
    _write(session, row.id, state=state.value, closed_at=now)


def _lines(amounts: dict[AccountKind, int]) -> tuple[Posting, ...]:
    return tuple(Posting(account, amount) for account, amount in amounts.items() if amount)


def _transaction(
    row: HoldRow, step: str, reason: Reason, lines: tuple[Posting, ...], now: datetime, may_owe: bool = False
) -> Transaction:
    source = Source(SourceKind(row.source_kind), row.source_id)
    key = f"hold/{row.id}/{step}"
    return Transaction(key, row.org_id, reason, source, lines, effective_at=now, actor=ACTOR, may_owe=may_owe)


def reserved_by(row: HoldRow) -> list[budgets.Reservation]:
    """The budgets and periods it has a reservation in."""
    return [(budget_id, datetime.fromisoformat(start)) for budget_id, start in row.budgets]


def _write(session: Session, hold_id: str, **values: object) -> None:
    session.connection().execute(update(_HOLDS).where(_HOLDS.c.id == hold_id).values(**values))


def _cannot_settle(row: HoldRow, actual: int, left: int) -> Conflict:
    if row.state in (HoldState.SETTLED, HoldState.RELEASED):
        return Conflict(f"the hold {row.id} is {row.state} already, for {row.charged} micro-dollars", state=row.state)
    if actual < row.drawn:
        return Conflict(f"{row.drawn} micro-dollars were drawn from the hold {row.id}: it cannot cost less")
    return Conflict(
        f"${to_usd(actual):f} is more than the ${to_usd(left):f} that the hold {row.id} still has, and nothing says "
        "that more may be charged",
        state=row.state,
    )
