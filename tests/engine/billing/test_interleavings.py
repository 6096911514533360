"""Any interleaving of everything that moves money, with crashes, retries and duplicates, leaves books that agree."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from functools import partial
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import and_
from sqlalchemy.sql.elements import ColumnElement
from sqlmodel import Session, col, select

from engine.billing import credit, meter, rating, settling, usage
from engine.model.errors import StackyardError
from engine.model.ledger import (
    AccountKind,
    Overage,
    Reason,
    Scopes,
    Source,
    SourceKind,
    UsageRecord,
)
from engine.store import budgets, holds, ledger, ledger_audit, orgs, prices, settlements
from engine.store import usage as intervals
from engine.store.database import Database
from engine.store.holds import Hold
from engine.store.ledger_tables import BudgetRow, HoldRow, LedgerTransactionRow, PriceRow
from engine.store.tables import OrgRow, UsageIntervalRow
from tests.fakes.clock import START

ORGS = ("org_1", "org_2")
LIMITS = {"org_1": 0, "org_2": 40}
SKUS = {"tokens": Decimal("0.0000003"), "images": Decimal("0.0000107")}
RATES = ("4.41", "0.0007")
BUDGETS = {"key_1": 90, "key_2": 25}
FAR = timedelta(days=4000)

Work = Callable[[Session], object]
org_ids = st.sampled_from(ORGS)
amounts = st.integers(1, 120)
names = st.integers(0, 6)
crashes = st.sampled_from([False, False, False, True])


class Crash(Exception):
    """The process ends before its transaction is committed."""


class Interleavings(RuleBasedStateMachine):
    """What customers, operators, machines and failing processes do, in any order."""

    open_database: ClassVar[Callable[[], Database]]

    @initialize()
    def begin(self) -> None:
        self.database = type(self).open_database()
        self.now = START
        self.done: list[tuple[Work, Callable[[Any], None]]] = []
        self.deposited: dict[str, int] = {}
        self.measured: dict[str, UsageRecord] = {}
        with self.database.write() as session:
            for id in ORGS:
                limit = LIMITS[id]
                orgs.insert(session, OrgRow(id=id, name=id, credit_limit_microdollars=limit, created_at=START))
                for key, most in BUDGETS.items():
                    budget = BudgetRow(
                        id=f"{id}/{key}", org_id=id, scope="key", scope_id=key, period="total",
                        limit_microdollars=most, created_at=START, updated_at=START,
                    )  # fmt: skip
                    budgets.put(session, budget)
            for sku, usd in SKUS.items():
                row = PriceRow(
                    id=sku, sku=sku, unit="one", unit_usd=usd, effective_from=START - FAR, created_at=START,
                    created_by="x",
                )  # fmt: skip
                prices.put(session, row, now=START - FAR)

    def work(self, work: Work, crash: bool, then: Callable[[Any], None] = lambda _: None) -> None:
        """Do it in one transaction; a refusal or a crash leaves nothing. Retries come from what was tried before."""
        self.done.append((work, then))
        try:
            with self.database.write() as session:
                result = work(session)
                if crash:
                    raise Crash
        except (StackyardError, Crash):
            return
        then(result)

    # Money in and out

    @rule(org=org_ids, amount=amounts, name=names, crash=crashes)
    def deposit(self, org: str, amount: int, name: int, crash: bool) -> None:
        key, now = f"{org}/{name}", self.now

        def count(done: credit.Deposited) -> None:
            assert done.is_new == (key not in self.deposited)
            assert self.deposited.setdefault(key, amount) == amount

        self.work(lambda s: credit.deposit(s, org, amount, key=key, actor="x", now=now), crash, count)

    @rule(org=org_ids, amount=amounts, name=names, crash=crashes)
    def promote(self, org: str, amount: int, name: int, crash: bool) -> None:
        key, now = f"{org}/{name}", self.now
        self.work(lambda s: credit.promote(s, org, amount, key=key, actor="x", now=now), crash)

    @rule(
        which=st.integers(0, 3), parts=st.lists(st.none() | amounts, min_size=1, max_size=3), name=names, crash=crashes
    )
    def refund(self, which: int, parts: list[int | None], name: int, crash: bool) -> None:
        """Of few transactions, and several times, so that together they would be more than it was."""
        wanted = [reason.value for reason in (Reason.SETTLEMENT, Reason.DEPOSIT, Reason.USAGE)]
        with self.database.read() as session:
            ids = [row.id for org in ORGS for row in reversed(ledger.page(session, org, reasons=wanted))]
        for number, amount in enumerate(parts if ids else ()):
            id, key, now = ids[which % len(ids)], f"{name + number}", self.now
            refund = partial(credit.refund, original_id=id, microdollars=amount, key=key, actor="x", now=now)
            self.work(refund, crash)

    # Holds

    @rule(
        org=org_ids, amount=st.integers(0, 60), name=names, key=st.sampled_from(["key_1", "key_2", None]), crash=crashes
    )
    def hold(self, org: str, amount: int, name: int, key: str | None, crash: bool) -> None:
        now = self.now
        wanted = Hold(
            f"{org}/{name}", Scopes(org, key_id=key), amount, Source(SourceKind.HOLD, str(name)),
            now + timedelta(hours=name),
        )  # fmt: skip
        self.work(lambda s: holds.open_hold(s, wanted, now=now), crash)

    @rule(org=org_ids, name=names, actual=st.integers(0, 60), crash=crashes)
    def settle(self, org: str, name: int, actual: int, crash: bool) -> None:
        now = self.now
        self.work(lambda s: holds.settle(s, f"{org}/{name}", actual, now=now), crash)

    @rule(org=org_ids, name=names, actual=st.integers(0, 200), crash=crashes)
    def settle_for_more(self, org: str, name: int, actual: int, crash: bool) -> None:
        """Only where no budget bounds the hold: an overage is what the caller allowed to pass it."""
        now = self.now

        def work(session: Session) -> None:
            if not holds.get(session, f"{org}/{name}").budgets:
                holds.settle(session, f"{org}/{name}", actual, now=now, overage=Overage.CHARGE)

        self.work(work, crash)

    @rule(org=org_ids, name=names, crash=crashes)
    def release(self, org: str, name: int, crash: bool) -> None:
        now = self.now
        self.work(lambda s: holds.release(s, f"{org}/{name}", now=now), crash)

    # Usage

    @rule(
        used=st.lists(
            st.tuples(org_ids, st.integers(0, 25), st.sampled_from(sorted(SKUS)), st.integers(1, 10**8)), max_size=6
        ),
        crash=crashes,
        is_rated=st.booleans(),
    )
    def ingest(self, used: list[tuple[str, int, str, int]], crash: bool, is_rated: bool) -> None:
        now, batch = self.now, f"batch_{len(self.done)}"
        records = [
            UsageRecord(f"{org}/{n}", org, sku, Decimal(quantity).scaleb(-3), now, deployment_id="dep_1")
            for org, n, sku, quantity in used
        ]

        def count(_stored: object) -> None:
            for record in records:
                self.measured.setdefault(record.source_id, record)

        self.work(lambda s: usage.ingest(s, records, batch_id=batch, now=now), crash, count)
        if is_rated:
            self.rate(False, 100)

    @rule(crash=crashes, most=st.integers(1, 8))
    def price(self, crash: bool, most: int) -> None:
        self.rate(crash, most)

    def rate(self, crash: bool, most: int) -> None:
        now = self.now
        self.work(lambda s: usage.rate_some(s, now, most=most), crash)

    @rule(org=org_ids, name=names, rate=st.sampled_from(RATES), crash=crashes, is_prepaid=st.booleans())
    def start(self, org: str, name: int, rate: str, crash: bool, is_prepaid: bool) -> None:
        id, now = f"use/{org}/{name}", self.now
        row = {
            "id": id, "org_id": org, "deployment_id": f"dep/{org}", "replica": id, "gpu_type": "h100",
            "hourly_rate_usd": rate, "started_at": now,
        }  # fmt: skip

        def work(session: Session) -> None:
            if session.get(UsageIntervalRow, id) is None:
                if is_prepaid:
                    scopes = Scopes(org)
                    meter.precharge(
                        session, interval_id=id, scopes=scopes, hourly_rate_usd=Decimal(rate) / 100_000, now=now
                    )
                intervals.insert(session, UsageIntervalRow(**row))

        self.work(work, crash)

    @rule(org=org_ids, name=names, ago=st.integers(0, 5000), crash=crashes)
    def end(self, org: str, name: int, ago: int, crash: bool) -> None:
        at = self.now - timedelta(seconds=ago)
        self.work(lambda s: intervals.close(s, f"dep/{org}", f"use/{org}/{name}", at), crash)

    @rule(name=names, org=org_ids, crash=crashes)
    def settle_interval(self, name: int, org: str, crash: bool) -> None:
        now = self.now
        self.work(lambda s: meter.settle_interval(s, f"use/{org}/{name}", now), crash)

    @rule(crash=crashes)
    def periodic_work(self, crash: bool) -> None:
        writes = iter(range(1000))

        def guard(_session: Session) -> None:
            if crash and next(writes) == 2:
                raise Crash

        with suppress(Crash):
            settling.settle_everything(self.database, self.now, guard=guard)

    # The world

    @rule(which=st.integers(0, 10**6), crash=crashes)
    def deliver_again(self, which: int, crash: bool) -> None:
        if self.done:
            work, then = self.done[which % len(self.done)]
            self.work(work, crash, then)

    @rule(seconds=st.integers(-4000, 12_000))
    def clock(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)

    @invariant()
    def books_agree(self) -> None:
        if not hasattr(self, "database"):
            return
        with self.database.read() as session:
            assert ledger_audit.verify(session) == []
            assert sum(ledger.totals(session).values()) == 0
            for org in ORGS:
                have = ledger.accounts(session, org)
                assert have[AccountKind.WALLET] >= -LIMITS[org]
                is_owing = have[AccountKind.RECEIVABLE] < 0
                assert not is_owing or have[AccountKind.WALLET] == -LIMITS[org], "nothing is owed while there is money"
                rows = [h for h in session.exec(select(HoldRow)).all() if h.org_id == org and h.state == "open"]
                assert have[AccountKind.HELD] == sum(h.amount - h.drawn for h in rows)
                paid_in = sum(v for key, v in self.deposited.items() if key.startswith(org))
                assert credit.deposits_microdollars(session, org) == paid_in
                for key, most in BUDGETS.items():
                    row = budgets.usage(session, budgets.get(session, f"{org}/{key}", org_id=org), self.now)
                    assert row.reserved == sum(h.amount - h.drawn for h in rows if h.scopes.get("key_id") == key)
                    assert row.spent + row.reserved <= most
            self._refunds_are_within(session)
            for row in session.exec(select(UsageIntervalRow)).all():
                self._interval_agrees(session, row)

    def _refunds_are_within(self, session: Session) -> None:
        for row in session.exec(select(LedgerTransactionRow)).all():
            back = [r.id for r in ledger.reversals(session, row.id)]
            lines = ledger.postings(session, [row.id, *back])
            whole = sum(p.microdollars for p in lines[row.id] if p.microdollars > 0)
            assert sum(sum(p.microdollars for p in lines[id] if p.microdollars > 0) for id in back) <= whole

    def _interval_agrees(self, session: Session, row: UsageIntervalRow) -> None:
        settled = session.get(settlements.IntervalSettlementRow, row.id)
        posted = settled.posted_microdollars if settled else 0
        ids = [t.id for t in session.exec(select(LedgerTransactionRow)).all() if t.source_id == row.id]
        lines = ledger.postings(session, ids)
        revenue = sum(p.microdollars for id in ids for p in lines[id] if p.account is AccountKind.REVENUE)
        assert revenue == posted
        corrections = session.exec(select(LedgerTransactionRow).where(_is_correction_of(row.id))).all()
        assert not corrections or (settled and settled.is_final), "what runs is never posted backwards"
        if settled:
            until = settled.settled_until
            if row.ended_at is None or until <= row.ended_at or settled.is_final:
                assert posted == rating.accrued_microdollars(meter.interval_of(row), until)

    def teardown(self) -> None:
        """In the end everything stops, everything is settled, and the bill is what was measured."""
        if not hasattr(self, "database"):
            return
        with self.database.write() as session:
            for row in session.exec(select(UsageIntervalRow)).all():
                intervals.close(session, row.deployment_id, row.replica, self.now)
        end = START + FAR
        settling.settle_everything(self.database, end, guard=lambda _: None)
        with self.database.read() as session:
            assert ledger_audit.verify(session) == []
            for row in session.exec(select(UsageIntervalRow)).all():
                assert settlements.posted(session, row.id) == rating.accrued_microdollars(meter.interval_of(row), end)
            for org in ORGS:
                assert self._rated(session, org) == self._expected(org)
        self.database.close()

    def _rated(self, session: Session, org: str) -> int:
        rows = ledger.page(session, org, reasons=[Reason.USAGE.value], limit=10_000)
        ids = [row.id for row in rows if row.source_kind == SourceKind.METER]
        lines = ledger.postings(session, ids)
        return sum(p.microdollars for id in ids for p in lines[id] if p.account is AccountKind.REVENUE)

    def _expected(self, org: str) -> int:
        total = 0
        for sku, usd in SKUS.items():
            quantity = sum((r.quantity for r in self.measured.values() if (r.org_id, r.sku) == (org, sku)), Decimal(0))
            total += round(quantity * usd * 1_000_000)
        return total


def _is_correction_of(interval_id: str) -> ColumnElement[bool]:
    t = LedgerTransactionRow
    return and_(col(t.source_id) == interval_id, col(t.reason) == Reason.USAGE_CORRECTION.value)


def _run(open_database: Callable[[], Database], examples: int) -> None:
    machine = type("Run", (Interleavings,), {"open_database": staticmethod(open_database)})
    slow = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
    few = settings(max_examples=examples, stateful_step_count=30, deadline=None, suppress_health_check=slow)
    run_state_machine_as_test(machine, settings=few)


@pytest.fixture
def examples() -> int:
    """Few, or what `--hypothesis-profile=fuzz` asks for."""
    asked = settings.default.max_examples
    return asked if asked > 100 else 0


def test_books_agree_whatever_happens_on_sqlite(new_sqlite_url: Callable[[], str], examples: int) -> None:
    _run(lambda: Database(new_sqlite_url()), examples or 10)


@pytest.mark.integration
def test_books_agree_whatever_happens_on_postgresql(new_postgres_url: Callable[[], str], examples: int) -> None:
    _run(lambda: Database(new_postgres_url()), examples // 20 or 3)
