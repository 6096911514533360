"""Holds and budgets: taken whole or not at all, given back once, never passed."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from engine.model.errors import BudgetExceeded, Conflict, InsufficientCredit, InvalidSpec, NotFound
from engine.model.ledger import (
    AccountKind,
    Balance,
    HoldState,
    Overage,
    Period,
    Posting,
    Reason,
    Scopes,
    Source,
    SourceKind,
    Transaction,
    window,
)
from engine.store import budgets, holds, ledger, ledger_audit, orgs
from engine.store.database import Database
from engine.store.holds import Hold
from engine.store.ledger_tables import BudgetRow, HoldRow
from engine.store.tables import OrgRow
from tests.fakes.clock import START

SCOPES = Scopes("org_1", user_id="user_1", key_id="key_1", deployment_id="dep_1")
SOURCE = Source(SourceKind.HOLD, "request_1")
HOUR = timedelta(hours=1)


@pytest.fixture
def store(database: Database) -> Iterator[Database]:
    with database.write() as session:
        orgs.insert(session, OrgRow(id="org_1", name="Acme", credit_limit_microdollars=0, created_at=START))
        lines = (Posting(AccountKind.CASH_MANUAL, -1000), Posting(AccountKind.WALLET, 1000))
        paid = Transaction("d", "org_1", Reason.DEPOSIT, Source(SourceKind.OPERATOR, "d"), lines, START, "operator:x")
        ledger.post(session, paid, now=START)
    yield database
    with database.read() as session:
        assert ledger_audit.verify(session) == []


def opened(store: Database, id: str = "h1", amount: int = 400, *, now: datetime = START) -> HoldRow:
    with store.write() as session:
        return holds.open_hold(session, Hold(id, SCOPES, amount, SOURCE, now + HOUR), now=now)


def settled(store: Database, actual: int, id: str = "h1", overage: Overage = Overage.REFUSE) -> HoldRow:
    with store.write() as session:
        return holds.settle(session, id, actual, now=START, overage=overage)


def balance(store: Database) -> Balance:
    with store.read() as session:
        return ledger_audit.verified_balance(session, "org_1")


def budget(
    store: Database, id: str, limit: int, scope: str = "org", scope_id: str = "org_1", period: str = "month"
) -> BudgetRow:
    with store.write() as session:
        return budgets.put(
            session,
            BudgetRow(
                id=id, org_id="org_1", scope=scope, scope_id=scope_id, period=period, limit_microdollars=limit,
                created_at=START, updated_at=START,
            ),
        )  # fmt: skip


def used(store: Database, id: str, now: datetime = START) -> tuple[int, int]:
    with store.read() as session:
        row = budgets.usage(session, budgets.get(session, id, org_id="org_1"), now)
        return row.reserved, row.spent


def test_a_hold_is_settled_for_what_it_cost(store: Database) -> None:
    opened(store)
    assert balance(store) == Balance(wallet=600, held=400)
    assert settled(store, 150).state == HoldState.SETTLED
    assert balance(store) == Balance(wallet=850)
    assert settled(store, 150).charged == 150, "again: nothing more happens"
    assert balance(store) == Balance(wallet=850)
    with pytest.raises(Conflict, match="settled"):
        settled(store, 151)
    with store.read() as session:
        assert ledger.accounts(session, "org_1")[AccountKind.REVENUE] == 150


def test_a_hold_opened_again_is_the_same_hold(store: Database) -> None:
    opened(store)
    assert opened(store).state == HoldState.OPEN
    assert balance(store).held == 400
    with pytest.raises(Conflict, match="h1"):
        opened(store, amount=401)


def test_more_than_the_wallet_cannot_be_held(store: Database) -> None:
    budget(store, "bud_1", 10_000)
    with pytest.raises(InsufficientCredit):
        opened(store, amount=1001)
    assert used(store, "bud_1") == (0, 0), "the budget was not consumed by the refused hold"
    with store.read() as session, pytest.raises(NotFound):
        holds.get(session, "h1")


def test_more_than_was_held_is_charged_only_where_that_is_said(store: Database) -> None:
    opened(store)
    with pytest.raises(Conflict, match="more than"):
        settled(store, 401)
    assert balance(store).held == 400
    settled(store, 1500, overage=Overage.CHARGE)
    assert balance(store) == Balance(wallet=0, owed=500)


def test_holds_that_nobody_settles_give_their_money_back(store: Database) -> None:
    budget(store, "bud_1", 500)
    opened(store)
    with store.write() as session:
        assert holds.due(session, START) == []
        assert holds.due(session, START + HOUR) == ["h1"]
        assert not holds.expire(session, "h1", now=START)
        assert holds.expire(session, "h1", now=START + HOUR)
        assert not holds.expire(session, "h1", now=START + HOUR)
    assert balance(store) == Balance(wallet=1000)
    assert used(store, "bud_1") == (0, 0)
    with pytest.raises(Conflict, match="more than"):
        settled(store, 100)
    settled(store, 100, overage=Overage.CHARGE)
    assert balance(store) == Balance(wallet=900)
    assert used(store, "bud_1") == (0, 100)


def test_a_released_hold_stays_released(store: Database) -> None:
    opened(store)
    for _ in range(2):
        with store.write() as session:
            assert holds.release(session, "h1", now=START).state == HoldState.RELEASED
    assert balance(store) == Balance(wallet=1000)
    with pytest.raises(Conflict, match="released"):
        settled(store, 0)
    opened(store, "h2")
    settled(store, 1, "h2")
    with store.write() as session, pytest.raises(Conflict, match="refund"):
        holds.release(session, "h2", now=START)


def test_a_free_hold_moves_no_money(store: Database) -> None:
    opened(store, amount=0)
    settled(store, 0)
    assert balance(store) == Balance(wallet=1000)
    with pytest.raises(InvalidSpec):
        opened(store, "h2", -1)
    with pytest.raises(InvalidSpec):
        settled(store, -1)


def test_every_budget_of_a_request_is_taken_or_none(store: Database) -> None:
    budget(store, "bud_org", 900)
    budget(store, "bud_key", 500, "key", "key_1", "day")
    budget(store, "bud_user", 10_000, "user", "user_1", "total")
    budget(store, "bud_dep", 450, "deployment", "dep_1")
    budget(store, "bud_other", 0, "deployment", "dep_2")
    opened(store)
    with pytest.raises(BudgetExceeded) as refusal:
        opened(store, "h2", 100)
    assert (refusal.value.details["budget_id"], refusal.value.details["needed_microdollars"]) == ("bud_dep", 100)
    assert "dep_1" in refusal.value.message and "2026-12-01" in refusal.value.message
    assert [used(store, id) for id in ("bud_org", "bud_key", "bud_user", "bud_dep")] == [(400, 0)] * 4
    settled(store, 150)
    assert [used(store, id) for id in ("bud_org", "bud_key", "bud_user", "bud_dep")] == [(0, 150)] * 4
    opened(store, "h2", 300)


def test_a_budget_is_whole_again_in_the_next_period(store: Database) -> None:
    budget(store, "bud_1", 400, period="day")
    opened(store)
    with pytest.raises(BudgetExceeded, match="2026-11-22 00:00"):
        opened(store, "h2", 1)
    tomorrow = datetime(2026, 11, 22, tzinfo=UTC)
    opened(store, "h3", 400, now=tomorrow)
    settled(store, 400)  # counts for the day it was reserved on
    assert used(store, "bud_1") == (0, 400)
    assert used(store, "bud_1", tomorrow) == (400, 0)
    with pytest.raises(BudgetExceeded):
        opened(store, "h4", 1, now=START)  # a clock that went back meets yesterday's budget


def test_a_budget_is_edited_and_removed(store: Database) -> None:
    budget(store, "bud_1", 100)
    assert budget(store, "bud_x", 500).id == "bud_1", "one budget per scope and period: its limit changes"
    opened(store)
    budget(store, "bud_1", 10)
    with pytest.raises(BudgetExceeded):
        opened(store, "h2", 1)
    with store.write() as session:
        assert [b.id for b in budgets.exhausted(session, SCOPES, START)] == ["bud_1"]
        budgets.remove(session, "bud_1", org_id="org_1", now=START)
        with pytest.raises(NotFound):
            budgets.get(session, "bud_1", org_id="org_1")
        assert budgets.list_for_org(session, "org_1") == []
    opened(store, "h2", 1)
    settled(store, 10)
    budget(store, "bud_2", 5)
    for wrong in ({"scope": "planet"}, {"period": "week"}, {"limit": -1}, {"scope": "org", "scope_id": "org_2"}):
        with pytest.raises(InvalidSpec):
            budget(store, "bud_3", **({"limit": 1} | wrong))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("zone", "local", "day", "month"),
    [
        ("UTC", datetime(2026, 1, 31, 23, 59, 59), datetime(2026, 2, 1), datetime(2026, 2, 1)),
        ("America/New_York", datetime(2026, 1, 31, 20), datetime(2026, 2, 2), datetime(2026, 3, 1)),
        ("Asia/Tokyo", datetime(2026, 3, 1, 8), datetime(2026, 3, 1), datetime(2026, 3, 1)),
        ("Europe/Berlin", datetime(2026, 3, 29, 3), datetime(2026, 3, 30), datetime(2026, 4, 1)),  # clocks go forward
        ("Europe/Berlin", datetime(2026, 10, 25, 2, 30, fold=1), datetime(2026, 10, 26), datetime(2026, 11, 1)),
        ("UTC", datetime(2028, 2, 29, 12), datetime(2028, 3, 1), datetime(2028, 3, 1)),
        ("UTC", datetime(2026, 12, 31, 23), datetime(2027, 1, 1), datetime(2027, 1, 1)),
    ],
)
def test_periods_end_at_utc_midnight_wherever_the_caller_is(
    zone: str, local: datetime, day: datetime, month: datetime
) -> None:
    at = local.replace(tzinfo=ZoneInfo(zone))
    starts, ends = window(Period.DAY, at)
    assert ends == day.replace(tzinfo=UTC) and ends - starts == timedelta(days=1) and starts <= at < ends
    starts, ends = window(Period.MONTH, at)
    assert ends == month.replace(tzinfo=UTC) and starts.day == 1 and starts <= at < ends
    assert window(Period.TOTAL, at)[1] is None
