"""Usage records: taken in once, priced with what held then, added up without drift."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from engine.billing import credit, rating, usage
from engine.billing.rating import Group, MeterKey, PriceList
from engine.model.errors import Conflict, InvalidSpec
from engine.model.ledger import AccountKind, Balance, PriceFrom, UsageRecord
from engine.store import budgets, ledger, prices, usage_records
from engine.store.database import Database
from engine.store.ledger_tables import BudgetRow, PriceRow
from engine.store.usage_records import Stored
from tests.fakes.clock import START

HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
TOKENS = "llama-3.1-8b/output"


def price(store: Database, usd: str, start: datetime = START, sku: str = TOKENS, *, now: datetime = START) -> PriceRow:
    with store.write() as session:
        return prices.put(
            session,
            PriceRow(
                id=f"price_{sku}_{start.timestamp()}_{usd}", sku=sku, unit="token", unit_usd=Decimal(usd),
                effective_from=start, created_at=now, created_by="operator:x",
            ),
            now=now,
        )  # fmt: skip


def record(
    id: str, quantity: str = "1000", *, at: datetime = START, org: str = "org_1", **fields: object
) -> UsageRecord:
    values = {"deployment_id": "dep_1", "key_id": "key_1", "sku": TOKENS} | fields
    return UsageRecord(source_id=id, org_id=org, quantity=Decimal(quantity), occurred_at=at, **values)  # type: ignore[arg-type]


def ingest(store: Database, batch: str, *records: UsageRecord, now: datetime = START + 9 * HOUR) -> Stored:
    with store.write() as session:
        return usage.ingest(session, records, batch_id=batch, now=now)


def rated(store: Database, most: int = usage.RATED_AT_ONCE) -> usage.Rated:
    return usage.rate_waiting(store, START + 9 * HOUR, most=most)


def revenue(store: Database, org: str = "org_1") -> int:
    with store.read() as session:
        return ledger.accounts(session, org)[AccountKind.REVENUE]


def test_usage_becomes_one_line_per_meter_and_hour(store: Database) -> None:
    price(store, "0.0000003")
    ingest(store, "b1", record("a"), record("b", "500"), record("c", key_id=None), record("d", at=START + HOUR))
    ingest(store, "b2", record("e", org="org_2"))
    done = rated(store)
    assert (done.records, done.transactions, done.microdollars) == (5, 4, 1350)
    assert (revenue(store), revenue(store, "org_2")) == (1050, 300)
    assert rated(store) == usage.Rated()
    with store.read() as session:
        lines = {row.key: row for row in ledger.page(session, "org_1")}
        line = lines[f"usage/b1/org_1/dep_1/key_1/{TOKENS}/{rating.hour_number(START)}"]
        assert (line.description, line.effective_at) == (f"1500 token of {TOKENS}", START)
        assert usage_records.unrated(session) == 0


def test_a_record_is_taken_in_once_forever(store: Database) -> None:
    price(store, "0.001")
    assert ingest(store, "b1", record("a", "7"), record("b", "7"), record("a", "7")) == Stored(2, 1)
    rated(store)
    assert ingest(store, "b2", record("a", "7"), record("c", "7")) == Stored(1, 1)
    assert ingest(store, "b3", record("a", "8")) == Stored(0, 1, ("a",)), "the first one counts, and it is said"
    rated(store)
    assert revenue(store) == 21_000


def test_small_prices_do_not_drift(store: Database) -> None:
    """Ten thousand times 0.3 micro-dollars are 3,000, in whatever batches they come."""
    price(store, "0.0000003")
    for number in range(10):
        ingest(store, f"b{number}", *(record(f"{number}/{n}", "1") for n in range(1000)))
        rated(store, most=500)
    assert revenue(store) == 3000


def test_a_price_counts_from_its_moment(store: Database) -> None:
    price(store, "0.001")
    price(store, "0.002", START + HOUR)
    ingest(store, "b1", record("a", "1", at=START + HOUR - SECOND), record("b", "1", at=START + HOUR))
    rated(store)
    assert revenue(store) == 3000


def test_a_price_change_divides_what_was_measured_over_it(store: Database) -> None:
    price(store, "0.001")
    price(store, "0.004", START + 2 * HOUR)
    stretch = record("a", "100", at=START + 3 * HOUR, started_at=START, ended_at=START + 3 * HOUR)
    ingest(store, "b1", stretch)
    rated(store)
    assert ingest(store, "b2", stretch) == Stored(0, 2)
    third = Decimal("33.333333333333")
    exact = (100 - third) * Decimal("0.001") + third * Decimal("0.004")
    with store.read() as session:
        [meter] = usage_records.meters_of(session, "org_1")
        assert meter.quantity == 100
        assert meter.total_usd == exact
        assert {row.effective_at for row in ledger.page(session, "org_1")} == {START + HOUR, START + 2 * HOUR}
    assert revenue(store) == 200_000


def test_prices_begin_now_or_later(store: Database) -> None:
    price(store, "0.001")
    with pytest.raises(InvalidSpec, match="past"):
        price(store, "0.002", START - SECOND)
    with pytest.raises(Conflict, match="begins at that moment"):
        price(store, "0.002")
    assert price(store, "0.001", now=START + HOUR).unit_usd == Decimal("0.001"), "set again: the same price"
    for wrong in ("-1", "NaN", "1e-20", "1e12"):
        with pytest.raises(InvalidSpec):
            price(store, wrong, START + HOUR)
    with store.write() as session, pytest.raises(InvalidSpec, match="counted in"):
        other = PriceRow(
            id="p", sku=TOKENS, unit="image", unit_usd=Decimal(1), effective_from=START + HOUR, created_at=START,
            created_by="x",
        )  # fmt: skip
        prices.put(session, other, now=START)
    with pytest.raises(DatabaseError, match="append-only"), store.write() as session:
        session.connection().execute(text("UPDATE prices SET unit_usd = '9'"))
    with store.read() as session:
        assert len(prices.for_sku(session, TOKENS)) == 1


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (record("x", "-1"), "zero or more"),
        (record("x", "NaN"), "zero or more"),
        (record("x", "0.0000000000001"), "decimals"),
        (record("x", sku="unheard-of"), "no price"),
        (record("x", at=START - SECOND), "no price"),
        (record("x", org="org_nobody"), "no organisation"),
        (record("x", at=START + 10 * HOUR), "future"),
        (record("", "1"), "source id"),
        (record("x", started_at=START), "start and an end"),
        (record("x", started_at=START + HOUR, ended_at=START), "start and an end"),
        (record("x", at=datetime(2026, 11, 21, 13)), "time zone"),
    ],
)
def test_one_wrong_record_keeps_its_batch_out(store: Database, wrong: UsageRecord, why: str) -> None:
    price(store, "0.001")
    with pytest.raises(InvalidSpec, match=why):
        ingest(store, "b1", record("good"), wrong)
    assert rated(store) == usage.Rated()
    assert ingest(store, "b2", record("good")).inserted == 1


def test_a_crash_while_pricing_leaves_it_to_the_next_pass(store: Database) -> None:
    price(store, "0.001")
    ingest(store, "b1", record("a", "1"))

    def crash(_session: object) -> None:
        raise RuntimeError("the power went out")

    with pytest.raises(RuntimeError):
        usage.rate_waiting(store, START + 9 * HOUR, guard=crash)
    assert revenue(store) == 0
    assert rated(store).records == 1
    assert revenue(store) == 1000


def test_usage_beyond_the_balance_is_owed_and_counted_in_budgets(store: Database) -> None:
    price(store, "0.001")
    with store.write() as session:
        credit.deposit(session, "org_1", 1500, key="p", actor="x", now=START)
        budgets.put(
            session,
            BudgetRow(
                id="bud_1", org_id="org_1", scope="key", scope_id="key_1", period="day", limit_microdollars=1,
                created_at=START, updated_at=START,
            ),
        )  # fmt: skip
    ingest(store, "b1", record("a", "1"), record("b", "1", at=START + HOUR), record("c", "1", key_id="key_2"))
    rated(store)
    with store.read() as session:
        assert ledger.balance(session, "org_1") == Balance(wallet=0, owed=1500)
        assert budgets.usage(session, budgets.get(session, "bud_1", org_id="org_1"), START).spent == 2000


_AT = st.integers(0, 20 * 3600)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 1), st.integers(0, 10**9)), max_size=40),
    st.integers(1, 10),
)
def test_batches_add_up_to_one_bill(used: list[tuple[int, int, int, int]], size: int) -> None:
    listed = {
        "p0": PriceFrom("p0", "s", Decimal("0.000000123456789"), START),
        "p1": PriceFrom("p1", "s", Decimal("0.0000003"), START),
    }
    groups = [
        Group(MeterKey("org", f"dep_{m}", "", "s"), hour, f"p{p}", Decimal(q).scaleb(-9)) for m, hour, p, q in used
    ]
    whole, _ = rating.rate(groups, {}, listed)
    meters: dict[MeterKey, rating.Meter] = {}
    posted: dict[MeterKey, int] = {}
    for start in range(0, len(groups), size):
        lines, moved = rating.rate(groups[start : start + size], meters, listed)
        meters |= moved
        for line in lines:
            assert line.microdollars >= 0
            posted[line.meter] = posted.get(line.meter, 0) + line.microdollars
    for meter in posted:
        exact = sum((g.quantity * listed[g.price_id].unit_usd for g in groups if g.meter == meter), Decimal(0))
        assert posted[meter] == sum(line.microdollars for line in whole if line.meter == meter)
        assert abs(posted[meter] - exact * 1_000_000) <= Decimal("0.5")


@given(st.decimals(0, 10**6, places=12), _AT, _AT, st.lists(_AT, max_size=5, unique=True))
def test_parts_of_a_record_add_up_to_it(quantity: Decimal, start: int, length: int, changes: list[int]) -> None:
    listed = PriceList(
        [PriceFrom(f"p{c}", "s", Decimal(c + 1), START + c * SECOND) for c in changes]
        + [PriceFrom("first", "s", Decimal(1), START - SECOND)]
    )
    begin = START + start * SECOND
    end = begin + length * SECOND
    whole = UsageRecord("a", "org", "s", quantity, end, started_at=begin, ended_at=end)
    parts = rating.priced(whole, listed)
    assert sum(part.record.quantity for part in parts) == quantity
    assert all(part.record.quantity >= 0 for part in parts)
    inside = [c for c in changes if start < c < start + length]
    assert len(parts) == 1 + len(inside)
    assert (parts[0].record.started_at, parts[-1].record.ended_at) == (begin, end)
