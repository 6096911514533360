"""GPU intervals to the ledger: by the hour, at the end, once, and never backwards."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.billing import credit, meter, operator_cost, rating
from engine.billing.operator_cost import Machine
from engine.billing.rating import Interval
from engine.model.errors import BudgetExceeded, InsufficientCredit
from engine.model.ledger import AccountKind, Balance, Scopes
from engine.store import budgets, holds, ledger, settlements, usage
from engine.store.database import Database
from engine.store.ledger_tables import BudgetRow
from engine.store.tables import UsageIntervalRow
from tests.fakes.clock import START

HOUR, SECOND = timedelta(hours=1), timedelta(seconds=1)
H100 = "4.41"


def running(
    store: Database, id: str = "use_1", *, start: datetime = START, rate: str = H100, org: str = "org_1"
) -> None:
    with store.write() as session:
        usage.insert(
            session,
            UsageIntervalRow(
                id=id, org_id=org, deployment_id="dep_1", replica=id, gpu_type="h100", hourly_rate_usd=rate,
                started_at=start,
            ),
        )  # fmt: skip


def ended(store: Database, at: datetime, id: str = "use_1") -> None:
    with store.write() as session:
        assert usage.close(session, "dep_1", id, at)


def revenue(store: Database, org: str = "org_1") -> int:
    with store.read() as session:
        return ledger.accounts(session, org)[AccountKind.REVENUE]


def balance(store: Database, org: str = "org_1") -> Balance:
    with store.read() as session:
        return ledger.balance(session, org)


def paid(store: Database, microdollars: int) -> None:
    with store.write() as session:
        credit.deposit(session, "org_1", microdollars, key="p", actor="operator:x", now=START)


def test_an_interval_is_posted_by_the_hour_and_at_its_end(store: Database) -> None:
    running(store, start=START + 1200 * SECOND)
    assert meter.settle_usage(store, START + 3599 * SECOND).transactions == 0
    assert meter.settle_usage(store, START + HOUR).microdollars == 2_940_000
    assert meter.settle_usage(store, START + HOUR).transactions == 0
    assert meter.settle_usage(store, START + 4 * HOUR + SECOND).transactions == 3, "missed hours are posted one by one"
    ended(store, START + 4 * HOUR + 90 * SECOND)
    assert meter.settle_usage(store, START + 5 * HOUR).transactions == 1
    assert meter.settle_usage(store, START + 9 * HOUR).intervals == 0
    assert revenue(store) == 2_940_000 + 3 * 4_410_000 + 110_250
    with store.read() as session:
        assert meter.deployment_cost(session, "dep_1", START + 9 * HOUR) * 1_000_000 == revenue(store)
        rows = ledger.page(session, "org_1")
        assert {row.source_id for row in rows} == {"use_1"}
        assert sorted(row.effective_at for row in rows)[0] == START + HOUR
        assert settlements.posted(session, "use_1") == revenue(store)


def test_a_clock_that_went_back_posts_nothing(store: Database) -> None:
    running(store)
    meter.settle_usage(store, START + 3 * HOUR)
    for earlier in (START + HOUR, START - 5 * HOUR):
        assert meter.settle_usage(store, earlier).transactions == 0
    ended(store, START + 4 * HOUR)
    assert meter.settle_usage(store, START + 2 * HOUR).transactions == 0, "an end that has not come yet by this clock"
    meter.settle_usage(store, START + 4 * HOUR)
    assert revenue(store) == 4 * 4_410_000


def test_an_end_found_late_gives_back_what_was_posted_beyond_it(store: Database) -> None:
    paid(store, 50_000_000)
    running(store)
    meter.settle_usage(store, START + 3 * HOUR)
    ended(store, START + HOUR)  # the machine was found to have vanished
    assert meter.settle_usage(store, START + 3 * HOUR).microdollars == -2 * 4_410_000
    assert revenue(store) == 4_410_000
    assert balance(store).wallet == 50_000_000 - 4_410_000
    with store.read() as session:
        assert len(ledger.page(session, "org_1", reasons=["usage_correction"])) == 1


def test_two_processes_settle_an_hour_once(store: Database) -> None:
    running(store)
    now = START + HOUR
    with store.read() as session:
        waiting = settlements.unsettled(session, now, now)
    for _ in range(2):  # both saw it waiting
        with store.write() as session:
            meter.settle_interval(session, waiting[0], now)
    assert revenue(store) == 4_410_000


def test_a_pass_that_may_not_write_leaves_nothing(store: Database) -> None:
    running(store)

    def refuse(_session: object) -> None:
        raise RuntimeError("another process leads")

    with pytest.raises(RuntimeError):
        meter.settle_usage(store, START + HOUR, guard=refuse)
    assert revenue(store) == 0
    meter.settle_usage(store, START + HOUR)
    assert revenue(store) == 4_410_000


def test_the_first_hour_is_paid_by_its_pre_charge(store: Database) -> None:
    paid(store, 10_000_000)
    scopes = Scopes("org_1", deployment_id="dep_1")
    with store.write() as session:
        rate = Decimal(H100)
        for _ in range(2):
            meter.precharge(session, interval_id="use_1", scopes=scopes, hourly_rate_usd=rate, now=START)
        with pytest.raises(InsufficientCredit):
            meter.precharge(session, interval_id="use_2", scopes=scopes, hourly_rate_usd=2 * rate, now=START)
    assert balance(store) == Balance(wallet=5_590_000, held=4_410_000)
    running(store, start=START + 1800 * SECOND)
    meter.settle_usage(store, START + HOUR)
    assert balance(store) == Balance(wallet=5_590_000, held=2_205_000)
    ended(store, START + HOUR + 900 * SECOND)
    meter.settle_usage(store, START + 2 * HOUR)
    assert balance(store) == Balance(wallet=10_000_000 - 3_307_500)
    assert meter.settle_usage(store, START + 2 * HOUR).intervals == 0
    with store.read() as session:
        hold = holds.get(session, meter.precharge_id("use_1"))
        assert (hold.state, hold.charged) == ("settled", 3_307_500)


def test_a_pre_charge_of_what_never_started_comes_back(store: Database) -> None:
    paid(store, 10_000_000)
    with store.write() as session:
        scopes = Scopes("org_1")
        meter.precharge(session, interval_id="use_1", scopes=scopes, hourly_rate_usd=Decimal(H100), now=START)
        meter.release_precharge(session, "use_1", now=START)
    assert balance(store) == Balance(wallet=10_000_000)


def test_budgets_count_what_runs(store: Database) -> None:
    with store.write() as session:
        for id, scope, scope_id in (("bud_1", "org", "org_1"), ("bud_2", "deployment", "dep_1")):
            budgets.put(
                session,
                BudgetRow(
                    id=id, org_id="org_1", scope=scope, scope_id=scope_id, period="day",
                    limit_microdollars=9_000_000, created_at=START, updated_at=START,
                ),
            )  # fmt: skip
    paid(store, 100_000_000)
    scopes = Scopes("org_1", deployment_id="dep_1")
    with store.write() as session:
        meter.precharge(session, interval_id="use_1", scopes=scopes, hourly_rate_usd=Decimal(H100), now=START)
    running(store)
    meter.settle_usage(store, START + 2 * HOUR)
    with store.write() as session:
        for id in ("bud_1", "bud_2"):
            row = budgets.usage(session, budgets.get(session, id, org_id="org_1"), START)
            assert (row.reserved, row.spent) == (0, 8_820_000)
        with pytest.raises(BudgetExceeded):
            meter.precharge(session, interval_id="use_2", scopes=scopes, hourly_rate_usd=Decimal(H100), now=START)
        assert budgets.exhausted(session, scopes, START) == []
    meter.settle_usage(store, START + 3 * HOUR)
    with store.read() as session:
        assert [b.id for b in budgets.exhausted(session, scopes, START)] == ["bud_1", "bud_2"]


def test_what_the_operator_pays_is_kept_apart(store: Database) -> None:
    running(store)
    listed = [Machine("droplet/1", "org_1", "dep_1", Decimal("3.39"), START)]
    with store.write() as session:
        assert operator_cost.observe(session, listed, listed_at=START) == (1, 0)
        assert operator_cost.observe(session, listed, listed_at=START) == (0, 0)
    ended(store, START + 2 * HOUR)  # the customer's bill ends here, the machine's not yet
    operator_cost.settle_machines(store, START + 2 * HOUR)
    with store.write() as session:
        assert operator_cost.observe(session, [], listed_at=START + 3 * HOUR) == (0, 1)
        assert operator_cost.observe(session, [], listed_at=START + 4 * HOUR) == (0, 0)
    meter.settle_usage(store, START + 4 * HOUR)
    operator_cost.settle_machines(store, START + 4 * HOUR)
    operator_cost.settle_machines(store, START + 5 * HOUR)
    with store.read() as session:
        accounts = ledger.accounts(session, "org_1")
    assert accounts[AccountKind.REVENUE] == 2 * 4_410_000
    assert accounts[AccountKind.OPERATOR_COST] == 3 * 3_390_000 == -accounts[AccountKind.CLOUD_PAYABLE]


@given(
    st.integers(0, 10**11),
    st.lists(st.integers(-(10**10), 3 * 10**10), max_size=30),
    st.decimals("0.0001", "50", places=4),
)
def test_any_walk_of_the_clock_posts_the_price_of_the_interval(length: int, steps: list[int], rate: Decimal) -> None:
    """Clocks jump both ways; once the end has come, what was posted is what the interval costs."""
    microsecond = timedelta(microseconds=1)
    start = START + 1234567 * microsecond
    interval = Interval("r", rate, start, start + length * microsecond)
    posted, settled_until, now = 0, start, start
    for step in steps:
        now += step * microsecond
        dues = rating.due(interval, posted=posted, settled_until=settled_until, now=now)
        assert all(due.microdollars >= 0 for due in dues)
        assert [due.until for due in dues] == sorted(due.until for due in dues)
        posted += sum(due.microdollars for due in dues)
        settled_until = dues[-1].until if dues else settled_until
        assert posted == rating.accrued_microdollars(interval, settled_until)
    final = rating.due(interval, posted=posted, settled_until=settled_until, now=start + 10**12 * microsecond)
    assert posted + sum(due.microdollars for due in final) == rating.accrued_microdollars(
        interval, start + 10**12 * microsecond
    )


@pytest.mark.parametrize(
    ("zone", "start", "hours"),
    [
        ("Europe/Berlin", datetime(2026, 3, 29, 0, 0), 23),  # the day that clocks go forward
        ("Europe/Berlin", datetime(2026, 10, 25, 0, 0), 25),
        ("America/New_York", datetime(2026, 11, 1, 0, 0), 25),
        ("Asia/Kolkata", datetime(2026, 1, 31, 0, 0), 24),
        ("Asia/Kathmandu", datetime(2026, 12, 31, 0, 0), 24),
    ],
)
def test_a_local_day_costs_the_hours_it_has(zone: str, start: datetime, hours: int) -> None:
    begin = start.replace(tzinfo=ZoneInfo(zone))
    end = (start + timedelta(days=1)).replace(tzinfo=ZoneInfo(zone))
    interval = Interval("r", Decimal("4.41"), begin.astimezone(UTC), end.astimezone(UTC))
    dues = rating.due(interval, posted=0, settled_until=interval.started_at, now=interval.ended_at or begin)
    assert sum(due.microdollars for due in dues) == hours * 4_410_000
    assert all(due.until.minute == 0 for due in dues[:-1])
