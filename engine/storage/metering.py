"""Records what storage costs: GB-months per object and hour, egress per object and hour. Prices and posts nothing.

A pass by the leader, as often as it likes: an hour is recorded when it is over, under an id that it will always have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

from sqlmodel import Session

from engine.billing import usage
from engine.billing.rating import HOUR, QUANTITY_DECIMALS, floor_hour, hour_number, hour_start
from engine.model.ledger import UsageRecord
from engine.model.storage import DECIMAL_GB
from engine.storage import prices
from engine.store import storage_egress, storage_objects
from engine.store.database import Database
from engine.store.storage_tables import EgressRow, StoredObjectRow

AT_ONCE = 500
"""Objects per transaction: a pass never holds the database for long."""

MOST_HOURS = 24
"""Hours of one object recorded at once: after a month of standing still each transaction is short all the same."""

_TICK = timedelta(microseconds=1)
_QUANTUM = 10**QUANTITY_DECIMALS


@dataclass(frozen=True)
class Metered:
    """What one pass recorded."""

    at_rest: int = 0
    egress: int = 0


def record(
    database: Database,
    now: datetime,
    *,
    new_id: Callable[[str], str],
    guard: Callable[[Session], None] = lambda _: None,
) -> Metered:
    """Record everything that is over and not yet recorded.

    Args:
        guard: called in every writing transaction before its end; raises when another process leads.
    """
    return Metered(
        _repeat(database, lambda session: record_at_rest(session, now, batch_id=new_id("batch")), guard),
        _repeat(database, lambda session: record_egress(session, now, batch_id=new_id("batch")), guard),
    )


def _repeat(database: Database, work: Callable[[Session], int | None], guard: Callable[[Session], None]) -> int:
    """`work` in transactions of its own until it finds nothing; the sum."""
    total = 0
    while True:
        with database.write() as session:
            done = work(session)
            guard(session)
        if done is None:
            return total
        total += done


def record_at_rest(session: Session, now: datetime, *, batch_id: str) -> int | None:
    """The next objects' time at rest; how many records. None: nothing is due."""
    due = storage_objects.unmetered(session, floor_hour(now), now, limit=AT_ONCE)
    if not due:
        return None
    prices.ensure(session, now)
    records: list[UsageRecord] = []
    for row in due:
        assert row.metered_until is not None  # the query says so
        end = _until(row, now)
        records += at_rest(row, row.metered_until, end)
        row.metered_until = end
        session.add(row)
    usage.ingest(session, records, batch_id=batch_id, now=now)
    return len(records)


def _until(row: StoredObjectRow, now: datetime) -> datetime:
    """Up to where an object's time is recorded in this step."""
    assert row.metered_until is not None
    end = floor_hour(now) if row.deleted_at is None else row.deleted_at
    return min(end, floor_hour(row.metered_until) + MOST_HOURS * HOUR)


def at_rest(row: StoredObjectRow, start: datetime, end: datetime) -> list[UsageRecord]:
    """One record for each hour, or the part of it, in which an object lay there between the two."""
    assert row.committed_at is not None
    records = []
    for begin, finish in _hours(start, end):
        month = _month_start(begin)
        since, size = max(row.committed_at, month), row.size_bytes or 0
        quantity = gb_months(size, since, finish, month) - gb_months(size, since, begin, month)
        if quantity:
            records.append(
                UsageRecord(
                    source_id=f"storage/{row.id}/{hour_number(begin)}", org_id=row.org_id, sku=prices.AT_REST,
                    quantity=quantity, occurred_at=finish, key_id=row.key_id, started_at=begin, ended_at=finish,
                )
            )  # fmt: skip
    return records


def gb_months(size_bytes: int, since: datetime, until: datetime, month: datetime) -> Decimal:
    """So many bytes for so long within a calendar month (UTC), rounded to what a record holds.

    10^9 bytes for the whole of a month, of whatever length, are exactly 1. Records are differences of these, so their
    sum is the rounded whole: rounding each hour by itself would charge a small file nothing, or half as much again.
    """
    share = Fraction((until - since) // _TICK, (_next_month(month) - month) // _TICK)
    return Decimal(round(Fraction(size_bytes, DECIMAL_GB) * share * _QUANTUM)).scaleb(-QUANTITY_DECIMALS)


def record_egress(session: Session, now: datetime, *, batch_id: str) -> int | None:
    """The next hours' egress beyond what is free; how many records. None: nothing is due."""
    due = storage_egress.unmetered(session, hour_number(now), limit=AT_ONCE)
    if not due:
        return None
    prices.ensure(session, now)
    records = [record for row in due if (record := _egress(session, row))]
    session.flush()
    usage.ingest(session, records, batch_id=batch_id, now=now)
    return len(records)


def _egress(session: Session, row: EgressRow) -> UsageRecord | None:
    """What of a row's new bytes costs something. Bytes that come late to an hour get a record of their own."""
    month = storage_egress.month(session, row.org_id, f"{hour_start(row.hour):%Y-%m}")
    new = row.sent_bytes - row.metered_bytes
    free_left = max(0, prices.FREE_EGRESS_BYTES - month.metered_bytes)
    billable = max(0, new - free_left)
    source_id = f"egress/{row.object_id}/{row.hour}/{row.metered_bytes}"
    month.metered_bytes += new
    row.metered_bytes = row.sent_bytes
    session.add(month)
    session.add(row)
    if not billable:
        return None
    return UsageRecord(
        source_id=source_id, org_id=row.org_id, sku=prices.EGRESS, quantity=Decimal(billable).scaleb(-9),
        occurred_at=row.last_at, key_id=row.key_id,
    )  # fmt: skip


def _hours(start: datetime, end: datetime) -> Iterator[tuple[datetime, datetime]]:
    """The UTC hours between the two, the first and last one perhaps in part."""
    while start < end:
        finish = min(floor_hour(start) + HOUR, end)
        yield start, finish
        start = finish


def _month_start(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _next_month(month: datetime) -> datetime:
    return month.replace(year=month.year + month.month // 12, month=month.month % 12 + 1)
