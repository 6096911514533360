"""From usage to money: exact decimals until the end, one rounding, named. Pure: reads no clock and no database.

What is posted is always the difference between a meter's rounded running total and what was posted of it before, so
posting by the hour, by the batch or once at the end charges the same.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

from engine.model.errors import InvalidSpec
from engine.model.ledger import PriceFrom, UsageRecord
from engine.model.money import MICRODOLLARS, to_usd

MICROSECONDS_PER_HOUR = 3_600_000_000
HOUR = timedelta(hours=1)
QUANTITY_DECIMALS = 12
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_QUANTUM = Decimal(1).scaleb(-QUANTITY_DECIMALS)
_EXACT = Context(prec=120)
"""Longer than any product or sum here: Python's own 28 digits would round a total of many small prices."""


@dataclass(frozen=True)
class Interval:
    """Time for which one replica is billed, at the price that was frozen when it began; `ended_at` None: it still runs.

    Hourly GPUs accrue per second at the hourly rate; we keep the clock's microseconds instead of rounding them away.
    """

    replica: str
    hourly_rate_usd: Decimal
    started_at: datetime
    ended_at: datetime | None = None


class Due(NamedTuple):
    """A difference to post: what accrued since the last one, up to `until`."""

    until: datetime
    microdollars: int


def accrued_microdollars(interval: Interval, now: datetime) -> int:
    """Price of one interval up to `now`, rounded once, half to even; never negative."""
    end = now if interval.ended_at is None else min(interval.ended_at, now)
    microseconds = max(0, (end - interval.started_at) // _MICROSECOND)
    # A fraction: a rate times microseconds over an hour has no end as a decimal, and a tie must be seen as one.
    return round(Fraction(interval.hourly_rate_usd) * int(MICRODOLLARS) * microseconds / MICROSECONDS_PER_HOUR)


def cost_microdollars(intervals: Sequence[Interval], now: datetime) -> int:
    """What intervals cost together up to `now`: each rounded as it is posted, so this is what the ledger will say."""
    return sum(accrued_microdollars(i, now) for i in intervals)


def cost_usd(intervals: Sequence[Interval], now: datetime) -> Decimal:
    """`cost_microdollars` in dollars, six decimals."""
    return to_usd(cost_microdollars(intervals, now))


def due(interval: Interval, *, posted: int, settled_until: datetime, now: datetime) -> list[Due]:
    """What has to be posted at `now`: one difference for every full UTC hour, and one at the interval's end.

    A running interval is never posted backwards: with a clock that went back there is nothing to do. Only an end that
    lies before what was posted already (a machine found to have been gone) gives back the difference.

    Args:
        posted: micro-dollars posted so far, up to `settled_until`; the interval's start when nothing was.
    """
    is_over = interval.ended_at is not None and interval.ended_at <= now
    until = interval.ended_at if interval.ended_at is not None and is_over else floor_hour(now)
    if until <= settled_until and not is_over:
        return []
    dues: list[Due] = []
    for moment in [*hours_between(settled_until, until), until]:
        amount = accrued_microdollars(interval, moment) - posted
        posted += amount
        dues.append(Due(moment, amount))
    return dues


def floor_hour(moment: datetime) -> datetime:
    """The UTC hour it lies in: half-hour time zones and clock changes play no part."""
    return moment.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def hours_between(start: datetime, end: datetime) -> list[datetime]:
    """Full hours strictly between the two, [n], n ≥ 0."""
    first = floor_hour(start) + HOUR
    count = max(0, -((first - end) // HOUR))
    return [first + n * HOUR for n in range(count)]


def hour_number(moment: datetime) -> int:
    """Full hours since 1970, UTC."""
    return (moment - _EPOCH) // HOUR


def hour_of(record: UsageRecord) -> int:
    """The hour a record counts for; a stretch of time that ends on the hour belongs to the hour it fills."""
    if record.started_at is None or record.ended_at is None:
        return hour_number(record.occurred_at)
    return hour_number(max(record.started_at, record.ended_at - _MICROSECOND))


def hour_start(number: int) -> datetime:
    return _EPOCH + number * HOUR


class PriceList:
    """Prices by sku and time. Built from all prices that are known; a price holds until the next one begins."""

    def __init__(self, prices: Iterable[PriceFrom]) -> None:
        self._by_sku: dict[str, list[PriceFrom]] = {}
        self._starts: dict[str, list[datetime]] = {}
        self.by_id: dict[str, PriceFrom] = {}
        for price in sorted(prices, key=lambda p: p.effective_from):
            self._by_sku.setdefault(price.sku, []).append(price)
            self._starts.setdefault(price.sku, []).append(price.effective_from)
            self.by_id[price.id] = price

    def at(self, sku: str, moment: datetime) -> PriceFrom:
        """The price in effect.

        Raises:
            InvalidSpec: there is none for this sku, or none yet at that time.
        """
        index = bisect_right(self._starts.get(sku, ()), moment)
        if index == 0:
            raise InvalidSpec(
                f"there is no price for {sku!r} at {moment.isoformat()}: an operator sets one with `stackyard admin`",
                sku=sku,
            )
        return self._by_sku[sku][index - 1]

    def changes(self, sku: str, start: datetime, end: datetime) -> list[datetime]:
        """When the price changed strictly between the two."""
        starts = self._starts.get(sku, [])
        return [s for s in starts[bisect_right(starts, start) :] if s < end]


class Part(NamedTuple):
    """A record, or the part of one that one price covers."""

    number: int
    record: UsageRecord
    price_id: str


def priced(record: UsageRecord, prices: PriceList) -> list[Part]:
    """A record with its price; divided in proportion to time where the price changed while it was measured.

    The parts' quantities add up to the record's exactly: the last one is what remains.

    Raises:
        InvalidSpec: no price holds then.
    """
    start, end = record.started_at, record.ended_at
    if start is None or end is None or not (changes := prices.changes(record.sku, start, end)):
        moment = record.occurred_at if start is None or end is None else start
        return [Part(0, record, prices.at(record.sku, moment).id)]
    edges, left, parts = [start, *changes, end], record.quantity, []
    for number, (begin, finish) in enumerate(pairwise(edges)):
        share = Fraction((finish - begin) // _MICROSECOND, (end - start) // _MICROSECOND)
        quantity = left if finish == end else min(left, _scaled(record.quantity, share))
        left -= quantity
        part = replace(record, quantity=quantity, started_at=begin, ended_at=finish, occurred_at=finish)
        parts.append(Part(number, part, prices.at(record.sku, begin).id))
    return parts


def _scaled(quantity: Decimal, share: Fraction) -> Decimal:
    return Decimal(round(Fraction(quantity) * share * 10**QUANTITY_DECIMALS)) * _QUANTUM


def check(record: UsageRecord, *, latest: datetime) -> None:
    """Let pass what can have been measured until `latest`.

    Raises:
        InvalidSpec: a quantity or times that cannot be; the message says which.
    """
    quantity, start, end = record.quantity, record.started_at, record.ended_at
    name = f"usage record {record.source_id!r}"
    if not record.source_id or not record.org_id or not record.sku:
        raise InvalidSpec(f"{name} lacks its source id, organisation or sku")
    if not quantity.is_finite() or quantity < 0 or quantity > 10**15:
        raise InvalidSpec(f"{name}: a quantity is zero or more, not {quantity}")
    exponent = quantity.as_tuple().exponent
    if isinstance(exponent, int) and exponent < -QUANTITY_DECIMALS:
        raise InvalidSpec(f"{name}: a quantity has {QUANTITY_DECIMALS} decimals at most, not {quantity}")
    if any(time is not None and time.tzinfo is None for time in (record.occurred_at, start, end)):
        raise InvalidSpec(f"{name}: times need a time zone")
    if (start is None) != (end is None) or (start is not None and end is not None and end < start):
        raise InvalidSpec(f"{name}: it has a start and an end, the end not before the start, or neither")
    if max(record.occurred_at, end or record.occurred_at) > latest:
        raise InvalidSpec(f"{name} lies in the future: {record.occurred_at.isoformat()}")


class MeterKey(NamedTuple):
    """Whose use of what is added up without an end."""

    org_id: str
    deployment_id: str
    key_id: str
    sku: str


class Group(NamedTuple):
    """Usage of one meter in one hour at one price, added up."""

    meter: MeterKey
    hour: int
    price_id: str
    quantity: Decimal


class Meter(NamedTuple):
    """A running total: exact, and how much of it is posted."""

    quantity: Decimal = Decimal(0)
    total_usd: Decimal = Decimal(0)
    posted_microdollars: int = 0


class Line(NamedTuple):
    """What one meter's use in one hour adds to the bill."""

    meter: MeterKey
    hour: int
    quantity: Decimal
    microdollars: int


def rate(
    groups: Iterable[Group], meters: Mapping[MeterKey, Meter], prices: Mapping[str, PriceFrom]
) -> tuple[list[Line], dict[MeterKey, Meter]]:
    """Line items of a batch of usage, and the meters after it.

    Returns:
        Lines by meter and hour, also those that came to nothing, and every meter that moved.
    """
    lines: list[Line] = []
    moved: dict[MeterKey, Meter] = {}
    for group in sorted(groups):
        before = moved.get(group.meter) or meters.get(group.meter) or Meter()
        price = prices[group.price_id].unit_usd
        total = _EXACT.add(before.total_usd, _EXACT.multiply(group.quantity, price))
        posted = round(Fraction(total) * int(MICRODOLLARS))
        moved[group.meter] = Meter(_EXACT.add(before.quantity, group.quantity), total, posted)
        amount = posted - before.posted_microdollars
        last = lines[-1] if lines else None
        if last is not None and (last.meter, last.hour) == (group.meter, group.hour):
            both = _EXACT.add(last.quantity, group.quantity)
            lines[-1] = Line(group.meter, group.hour, both, last.microdollars + amount)
        else:
            lines.append(Line(group.meter, group.hour, group.quantity, amount))
    return lines, moved
