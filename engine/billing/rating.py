"""From usage to money: exact decimals until the end, one rounding, named. Pure: reads no clock and no database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal

from engine.model.money import to_microdollars, to_usd

MICROSECONDS_PER_HOUR = Decimal(3_600_000_000)


@dataclass(frozen=True)
class Interval:
    """Time for which one replica is billed, at the price that was frozen when it began; `ended_at` None: it still runs.

    Hourly GPUs accrue per second at the hourly rate; we keep the clock's microseconds instead of rounding them away.
    """

    replica: str
    hourly_rate_usd: Decimal
    started_at: datetime
    ended_at: datetime | None = None


def accrued_usd(interval: Interval, now: datetime) -> Decimal:
    """Exact price of one interval up to `now`; never negative."""
    end = now if interval.ended_at is None else min(interval.ended_at, now)
    microseconds = max(0, (end - interval.started_at) // timedelta(microseconds=1))
    return interval.hourly_rate_usd * microseconds / MICROSECONDS_PER_HOUR


def cost_microdollars(intervals: Sequence[Interval], now: datetime) -> int:
    """What all intervals cost together up to `now`: the exact sum, rounded once, half to even.

    Rounding the running total instead of each part keeps the posted differences from drifting.
    """
    return to_microdollars(sum((accrued_usd(i, now) for i in intervals), Decimal(0)))


def cost_usd(intervals: Sequence[Interval], now: datetime) -> Decimal:
    """`cost_microdollars` in dollars, six decimals."""
    return to_usd(cost_microdollars(intervals, now))
