"""Amounts: rates are exact decimals, posted amounts are integers of micro-dollars (1 USD = 1,000,000)."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal

MICRODOLLARS = Decimal(1_000_000)


def to_microdollars(usd: Decimal) -> int:
    """Whole micro-dollars of an exact amount, half to even (no drift over many roundings)."""
    return int((usd * MICRODOLLARS).quantize(Decimal(1), rounding=ROUND_HALF_EVEN))


def to_usd(microdollars: int) -> Decimal:
    """The exact amount in dollars."""
    return Decimal(microdollars) / MICRODOLLARS
