"""What storage costs, to the byte and the hour, against a calculator of its own."""

from __future__ import annotations

import calendar
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlmodel import select

from engine.billing import usage
from engine.billing.rating import hour_number
from engine.model.errors import StaleLease
from engine.storage import metering, prices
from engine.store import ledger, storage_egress
from engine.store.database import Database
from engine.store.ledger_tables import UsageRecordRow
from engine.store.storage_egress import Sent
from engine.store.storage_tables import StoredObjectRow
from tests.fakes.clock import FakeClock
from tests.fakes.storage import DiskStorage, stored

GB = 10**9
NUMBERS = count()


def new_id(prefix: str) -> str:
    return f"{prefix}_{next(NUMBERS)}"


def expected_gb_months(size: int, start: datetime, end: datetime) -> Fraction:
    """The definition again, second by second of each calendar month, by other means."""
    total, at = Fraction(0), start
    while at < end:
        days = calendar.monthrange(at.year, at.month)[1]
        first = datetime(at.year, at.month, 1, tzinfo=UTC)
        until = min(end, first + timedelta(days=days))
        total += Fraction(size) * Fraction(str((until - at).total_seconds())) / (GB * days * 86400)
        at = until
    return total


def records(database: Database, sku: str) -> list[UsageRecordRow]:
    with database.read() as session:
        return [row for row in session.exec(select(UsageRecordRow)) if row.sku == sku]


def begin_prices(database: Database, at: datetime) -> None:
    with database.write() as session:
        prices.ensure(session, at)


def test_a_gigabyte_for_a_month_is_one_gb_month_of_any_length(disk: DiskStorage, store: Database) -> None:
    for month, days in ((2, 28), (3, 31), (4, 30)):
        start = datetime(2026, month, 1, tzinfo=UTC)
        quantities = [
            r.quantity
            for r in metering.at_rest(
                StoredObjectRow(id="obj_1", org_id="org_1", size_bytes=GB, committed_at=start),  # type: ignore[call-arg]
                start,
                start + timedelta(days=days),
            )
        ]
        assert len(quantities) == days * 24 and sum(quantities) == 1


@settings(max_examples=30, deadline=None)
@given(
    size=st.integers(0, 10**13),
    start=st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 31)),
    seconds=st.integers(0, 70 * 86400),
    cuts=st.lists(st.integers(0, 70 * 24), max_size=4),
)
def test_hours_add_up_to_the_whole_wherever_passes_fall(
    size: int, start: datetime, seconds: int, cuts: list[int]
) -> None:
    start = start.replace(tzinfo=UTC)
    end = start + timedelta(seconds=seconds)
    row = StoredObjectRow(id="obj_1", org_id="org_1", size_bytes=size, committed_at=start)  # type: ignore[call-arg]
    found, at = [], start
    for hours in [*sorted(cuts), None]:
        until = end if hours is None else min(end, max(at, _floor(start) + timedelta(hours=hours)))
        found += metering.at_rest(row, at, until)
        at = until
    assert len({r.source_id for r in found}) == len(found)
    months = (end.year - start.year) * 12 + end.month - start.month + 1
    off = abs(Fraction(sum((r.quantity for r in found), Decimal(0))) - expected_gb_months(size, start, end))
    assert off <= Fraction(months, 2 * 10**12)  # half of the smallest quantity per calendar month


def test_pass_records_hours_that_are_over_once(disk: DiskStorage, store: Database, clock: FakeClock) -> None:
    committed = clock.now() + timedelta(minutes=30)  # 12:30
    begin_prices(store, clock.now())
    object_id = stored(store, 3 * GB, committed)
    now = clock.advance(3 * 3600 + 60)  # 15:01
    assert metering.record(store, now, new_id=new_id).at_rest == 3
    assert metering.record(store, now, new_id=new_id).at_rest == 0
    rows = sorted(records(store, prices.AT_REST), key=lambda r: r.hour)
    assert [r.source_id for r in rows] == [f"storage/{object_id}/{hour_number(committed) + n}" for n in range(3)]
    assert [(r.ended_at - r.started_at).total_seconds() for r in rows] == [1800, 3600, 3600]  # type: ignore[operator]
    assert abs(Fraction(sum(r.quantity for r in rows)) - expected_gb_months(3 * GB, committed, _floor(now))) < 1e-12


def test_deleted_object_ends_at_its_deletion(disk: DiskStorage, store: Database, clock: FakeClock) -> None:
    begin_prices(store, clock.now())
    start = clock.now()
    deleted = start + timedelta(hours=30, minutes=15)
    stored(store, GB, start, phase="deleted", deleted_at=deleted)
    metering.record(store, deleted + timedelta(minutes=1), new_id=new_id)
    rows = records(store, prices.AT_REST)
    assert len(rows) == 31 and max(r.ended_at for r in rows if r.ended_at) == deleted
    assert metering.record(store, deleted + timedelta(days=3), new_id=new_id).at_rest == 0


def test_passes_charge_what_the_documented_prices_say(disk: DiskStorage, store: Database, clock: FakeClock) -> None:
    """250 GB from noon of the 21st to the end of November: 250 × 9.5/30 GB-months at $0.015."""
    begin_prices(store, clock.now())
    stored(store, 250 * GB, clock.now())
    now = clock.now()
    while now < datetime(2026, 12, 1, tzinfo=UTC):
        now = clock.advance(13 * 3600)
        metering.record(store, min(now, datetime(2026, 12, 1, tzinfo=UTC)), new_id=new_id)
        usage.rate_waiting(store, now)
    with store.read() as session:
        wallet = ledger.balance(session, "org_1").wallet
    assert wallet == -round(Decimal(250) * Decimal("9.5") / 30 * Decimal("0.015") * 10**6)


def test_egress_costs_beyond_ten_gb_a_month(disk: DiskStorage, store: Database, clock: FakeClock) -> None:
    begin_prices(store, clock.now())

    def send(object_id: str, count: int, org_id: str = "org_1") -> None:
        with store.write() as session:
            sent = Sent(object_id, org_id, "key_1", count)
            storage_egress.add(session, [sent], hour_number(clock.now()), clock.now())

    send("obj_a", 6 * GB)
    assert metering.record(store, clock.now(), new_id=new_id).egress == 0  # its hour is not over
    clock.advance(3600)
    send("obj_a", 3 * GB)
    send("obj_b", 2 * GB + 1)
    send("obj_c", 9 * GB, "org_2")
    clock.advance(3600)
    assert metering.record(store, clock.now(), new_id=new_id).egress == 1
    assert [r.quantity for r in records(store, prices.EGRESS)] == [Decimal("1.000000001")]
    send("obj_b", 5)
    with store.write() as session:  # bytes that come late to an hour that was metered
        late = Sent("obj_b", "org_1", "key_1", 7)
        storage_egress.add(session, [late], hour_number(clock.now()) - 1, clock.now())
    clock.advance(3600)
    metering.record(store, clock.now(), new_id=new_id)
    assert sum(r.quantity for r in records(store, prices.EGRESS)) == Decimal("1.000000013")
    clock.advance(10 * 86400)  # December: ten free ones again
    send("obj_a", 10 * GB)
    clock.advance(3600)
    assert metering.record(store, clock.now(), new_id=new_id).egress == 0
    usage.rate_waiting(store, clock.now())
    with store.read() as session:
        assert ledger.balance(session, "org_1").wallet == -20_000


def test_pass_that_lost_its_lease_records_nothing(disk: DiskStorage, store: Database, clock: FakeClock) -> None:
    begin_prices(store, clock.now())
    stored(store, GB, clock.now())
    clock.advance(7200)

    def lost(_session: object) -> None:
        raise StaleLease("another process leads")

    with pytest.raises(StaleLease):
        metering.record(store, clock.now(), new_id=new_id, guard=lost)
    assert records(store, prices.AT_REST) == []
    assert metering.record(store, clock.now(), new_id=new_id).at_rest == 2


def _floor(moment: datetime) -> datetime:
    return moment.replace(minute=0, second=0, microsecond=0)
