"""What storage costs: the skus, their units and first prices. Operators set later prices with `stackyard admin`."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from sqlmodel import Session

from engine.model.storage import DECIMAL_GB
from engine.store import prices
from engine.store.ledger_tables import PriceRow

AT_REST = "storage_gb_month"
EGRESS = "egress_gb"
UNIT_AT_REST = "GB-month"
UNIT_EGRESS = "GB"
FIRST_PRICES = ((AT_REST, UNIT_AT_REST, Decimal("0.015")), (EGRESS, UNIT_EGRESS, Decimal("0.02")))

FREE_EGRESS_BYTES = 10 * DECIMAL_GB
"""Per organisation and calendar month (UTC)."""


def ensure(session: Session, now: datetime) -> None:
    """Give every sku that has none its documented price, from now on: before the first byte is kept."""
    for sku, unit, usd in FIRST_PRICES:
        known = prices.for_sku(session, sku)
        if any(row.effective_from <= now for row in known):
            continue
        row = PriceRow(
            id=f"price_{sku}_first", sku=sku, unit=known[0].unit if known else unit, unit_usd=usd, effective_from=now,
            created_at=now, created_by="system:storage",
        )  # fmt: skip
        prices.put(session, row, now=now)
