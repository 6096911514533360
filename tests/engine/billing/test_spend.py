"""Out of money: what it means for new work, for running work, and when."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from sqlalchemy import text

from engine.billing import credit, meter, settling, spend
from engine.billing.spend import SpendState
from engine.model.errors import BudgetExceeded, InsufficientCredit, NotFound
from engine.model.ledger import Balance, Scopes, Source, SourceKind
from engine.store import audit, budgets, holds, usage
from engine.store.database import Database
from engine.store.holds import Hold
from engine.store.ledger_audit import Finding
from engine.store.ledger_tables import BudgetRow
from engine.store.tables import UsageIntervalRow
from tests.fakes.clock import START

HOUR = timedelta(hours=1)
DOLLAR = 1_000_000


@pytest.mark.parametrize(
    ("balance", "hourly", "empty_since", "state", "since"),
    [
        (Balance(wallet=100 * DOLLAR), "1", None, SpendState.OK, None),
        (Balance(wallet=100 * DOLLAR), "4.41", None, SpendState.WARNED, None),
        (Balance(wallet=0, held=DOLLAR), "1", None, SpendState.WARNED, None),
        (Balance(wallet=0), "1", None, SpendState.GRACE, START),
        (Balance(wallet=0, owed=5), "0", None, SpendState.GRACE, START),
        (Balance(wallet=0, owed=5), "1", START - HOUR / 2, SpendState.GRACE, START - HOUR / 2),
        (Balance(wallet=0, owed=5), "1", START - HOUR, SpendState.DRAINED, START - HOUR),
        (Balance(wallet=0, owed=5), "0", START - HOUR, SpendState.DRAINED, START - HOUR),
        (Balance(wallet=0, owed=5), "1", START + HOUR, SpendState.GRACE, START + HOUR),  # the clock went back
        (Balance(wallet=DOLLAR), "0", START - HOUR, SpendState.OK, None),
        (Balance(wallet=0), "0", None, SpendState.OK, None),
        (Balance(wallet=-9 * DOLLAR, credit_limit=10 * DOLLAR), "0.01", None, SpendState.OK, None),
        (Balance(wallet=-10 * DOLLAR, credit_limit=10 * DOLLAR), "1", None, SpendState.GRACE, START),
        (Balance(wallet=-(10**12), credit_limit=None), "99", None, SpendState.OK, None),
    ],
)
def test_what_a_balance_means(
    balance: Balance, hourly: str, empty_since: datetime | None, state: SpendState, since: datetime | None
) -> None:
    standing = spend.decide(balance, hourly_usd=Decimal(hourly), empty_since=empty_since, now=START, grace=HOUR)
    assert (standing.state, standing.empty_since) == (state, since)
    assert (standing.drains_at is not None) == (state in (SpendState.GRACE, SpendState.DRAINED))


def test_a_balance_runs_dry_and_is_filled_again(store: Database) -> None:
    with store.write() as session:
        credit.deposit(session, "org_1", 5 * DOLLAR, key="p1", actor="x", now=START)
        usage.insert(
            session,
            UsageIntervalRow(
                id="use_1", org_id="org_1", deployment_id="dep_1", replica="r", gpu_type="h100",
                hourly_rate_usd="4.41", started_at=START,
            ),
        )  # fmt: skip

    def one_pass(now: datetime) -> list[tuple[str, str]]:
        report = settling.settle_everything(store, now, grace=2 * HOUR, guard=lambda _: None)
        return [(change.before.value, change.after.state.value) for change in report.changes]

    assert one_pass(START) == [("ok", "warned")]
    assert one_pass(START + HOUR) == []
    assert one_pass(START + 2 * HOUR) == [("warned", "grace")]
    with store.read() as session:
        with pytest.raises(InsufficientCredit, match="used up and"):
            spend.require_funds(session, "org_1")
        standing = spend.standing_of(session, "org_1", START + 3 * HOUR, grace=2 * HOUR)
        assert (standing.state, standing.drains_at) == (SpendState.GRACE, START + 4 * HOUR)
    assert one_pass(START + 3 * HOUR) == []
    assert one_pass(START + 4 * HOUR) == [("grace", "drained")]
    with store.write() as session:
        usage.close(session, "dep_1", "r", START + 4 * HOUR)
    assert one_pass(START + 5 * HOUR) == [], "drained it stays until money comes"
    with store.write() as session:
        credit.deposit(session, "org_1", 50 * DOLLAR, key="p2", actor="x", now=START)
    assert one_pass(START + 5 * HOUR) == [("drained", "ok")]
    with store.read() as session:
        assert spend.require_funds(session, "org_1").wallet == 55 * DOLLAR - 4 * 4_410_000
        states = [row.details["to"] for row in audit.page(session) if row.action == "org.spend_state_changed"]
        assert states == ["ok", "drained", "grace", "warned"]


def test_new_work_needs_money_and_budget(store: Database) -> None:
    scopes = Scopes("org_1", key_id="key_1")
    with store.write() as session:
        with pytest.raises(InsufficientCredit, match="balance is used up"):
            spend.require_funds(session, "org_1")
        with pytest.raises(NotFound):
            spend.require_funds(session, "org_nobody")
        spend.require_funds(session, "org_free", 10**9)
        credit.deposit(session, "org_1", DOLLAR, key="p1", actor="x", now=START)
        with pytest.raises(InsufficientCredit, match=r"needs \$2 and \$1 is available"):
            spend.require_funds(session, "org_1", 2 * DOLLAR)
        budgets.put(
            session,
            BudgetRow(
                id="bud_1", org_id="org_1", scope="key", scope_id="key_1", period="month", limit_microdollars=10,
                created_at=START, updated_at=START,
            ),
        )  # fmt: skip
        spend.require_funds(session, "org_1", scopes=scopes, now=START)
        holds.open_hold(session, Hold("h", scopes, 10, Source(SourceKind.HOLD, "h")), now=START)
        with pytest.raises(BudgetExceeded, match="bud_1"):
            spend.require_funds(session, "org_1", scopes=scopes, now=START)


def test_one_pass_does_all_the_periodic_work(store: Database) -> None:
    with store.write() as session:
        credit.deposit(session, "org_1", 50 * DOLLAR, key="p1", actor="x", now=START)
        lapsing = Hold("h", Scopes("org_1"), DOLLAR, Source(SourceKind.HOLD, "h"), START + HOUR)
        holds.open_hold(session, lapsing, now=START)
        meter.precharge(session, interval_id="use_9", scopes=Scopes("org_1"), hourly_rate_usd=Decimal("1"), now=START)
    report = settling.settle_everything(store, START + HOUR, guard=lambda _: None)
    assert (report.expired_holds, report.intervals.intervals, report.usage.records) == (1, 0, 0)
    with store.read() as session:
        assert holds.get(session, "h").state == "expired"
        assert holds.get(session, meter.precharge_id("use_9")).state == "open", "a pre-charge waits for its interval"


def test_the_books_are_verified_once_a_day(store: Database) -> None:
    def verified(now: datetime) -> list[Finding] | None:
        return settling.verify_daily(store, now, guard=lambda _: None)

    with store.write() as session:
        credit.deposit(session, "org_1", 5 * DOLLAR, key="p1", actor="x", now=START)
    assert verified(START) == []
    assert verified(START + 11 * HOUR) is None
    assert verified(START - 24 * HOUR) is None, "a clock that went back"
    with store.write() as session:
        session.connection().execute(text("UPDATE ledger_accounts SET balance = 1 WHERE kind = 'wallet'"))
    found = verified(START + 12 * HOUR) or []
    assert [f.subject for f in found] == ["org_1/wallet"]
    with store.write() as session:
        [row, _] = [row for row in audit.page(session) if row.action == settling.VERIFIED]
        assert "org_1/wallet" in row.details["findings"][0]
        session.connection().execute(text(f"UPDATE ledger_accounts SET balance = {5 * DOLLAR} WHERE kind = 'wallet'"))
