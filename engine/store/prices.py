"""Queries about prices: what one unit of a sku costs from when on. Prices usage nowhere; that is `billing.rating`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from sqlalchemy import select
from sqlmodel import Session, col

from engine.model.errors import Conflict, InvalidSpec
from engine.model.ledger import PriceFrom
from engine.store.ledger_tables import PriceRow

PRICE_DECIMALS = 15
MOST_USD = Decimal(10**9)


def put(session: Session, row: PriceRow, *, now: datetime) -> PriceRow:
    """Set what a sku costs from `row.effective_from` on. Nothing that was used is priced anew.

    Raises:
        InvalidSpec: it begins in the past, is negative or no number, or counts another unit than the sku's others.
        Conflict: another price begins at that moment.
    """
    price = row.unit_usd
    if not row.sku or not row.unit:
        raise InvalidSpec("a price needs a sku and the unit it counts")
    if not price.is_finite() or not 0 <= price <= MOST_USD:
        raise InvalidSpec(f"a price is zero or more dollars, not {price}", sku=row.sku)
    exponent = price.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -PRICE_DECIMALS:
        raise InvalidSpec(f"a price has {PRICE_DECIMALS} decimals at most, not {price}", sku=row.sku)
    if row.effective_from.tzinfo is None:
        raise InvalidSpec("the time a price begins at needs a time zone", sku=row.sku)
    known = for_sku(session, row.sku)
    if known and known[-1].unit != row.unit:
        raise InvalidSpec(f"{row.sku!r} is counted in {known[-1].unit!r}, not in {row.unit!r}: name a new sku")
    for other in known:
        if other.effective_from == row.effective_from:
            if other.unit_usd == price:
                return other
            raise Conflict(f"a price of ${other.unit_usd:f} for {row.sku!r} begins at that moment: choose a later one")
    if row.effective_from < now:
        raise InvalidSpec(
            f"a price cannot begin in the past ({row.effective_from.isoformat()}): what was used keeps its price; "
            "give a time from now on",
            sku=row.sku,
        )
    session.add(row)
    session.flush()
    return row


def for_sku(session: Session, sku: str) -> Sequence[PriceRow]:
    """All prices of a sku, oldest first."""
    query = select(PriceRow).where(col(PriceRow.sku) == sku).order_by(col(PriceRow.effective_from))
    return session.execute(query).scalars().all()


def everything(session: Session) -> list[PriceRow]:
    """All prices, by sku and time: a price list is hundreds of rows, not millions."""
    query = select(PriceRow).order_by(col(PriceRow.sku), col(PriceRow.effective_from))
    return list(session.execute(query).scalars())


def value_of(row: PriceRow) -> PriceFrom:
    """The row as its value."""
    return PriceFrom(row.id, row.sku, row.unit_usd, row.effective_from, row.unit)
