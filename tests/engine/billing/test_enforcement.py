"""Running work ends with the money: dated exactly, brought back by a deposit, a raised budget or a new period."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from sqlmodel import Session

from engine.billing import credit, enforcement, meter, settling, spend
from engine.billing.rating import Interval
from engine.model.errors import StaleLease
from engine.store import audit, budgets, deployments, ledger, usage
from engine.store.database import Database
from engine.store.ledger_tables import BudgetRow
from engine.store.tables import DeploymentRow, UsageIntervalRow
from tests.fakes.clock import START
from tests.fakes.rows import deployment_row

HOUR = timedelta(hours=1)
DOLLAR = 1_000_000
RATE = "4.41"


def nothing(session: Session) -> None: ...


def settle(store: Database, now: datetime) -> tuple[str, ...]:
    """One pass; then what the reconciler does with a suspension."""
    enforced = settling.settle_everything(store, now, grace=HOUR, guard=nothing).enforced
    with store.write() as session:
        for row in deployments.all_living(session):
            if row.suspended_at is not None and row.spec_changed_at is not None:
                for open_one in usage.open_for_deployment(session, row.id):
                    usage.close(session, row.id, open_one.replica, row.spec_changed_at)
    return enforced


def run(store: Database, deployment_id: str, *, replicas: int = 1, since: datetime = START, org: str = "org_1") -> None:
    """A deployment that runs and is billed."""
    with store.write() as session:
        if deployments.get(session, deployment_id) is None:
            row = deployment_row(since, deployment_id)
            row.org_id = org
            deployments.insert(session, row)
        for index in range(replicas):
            usage.insert(session, UsageIntervalRow(
                id=f"use_{deployment_id}_{index}_{since:%d%H%M%S}", org_id=org, deployment_id=deployment_id,
                replica=f"r1-{index}", gpu_type="h100", hourly_rate_usd=RATE, started_at=since,
            ))  # fmt: skip


def limit(store: Database, scope: str, scope_id: str, usd: str, period: str = "day") -> None:
    with store.write() as session:
        budgets.put(session, BudgetRow(
            id=f"bud_{scope}", org_id="org_1", scope=scope, scope_id=scope_id, period=period,
            limit_microdollars=int(Decimal(usd) * DOLLAR), created_at=START, updated_at=START,
        ))  # fmt: skip


def state(store: Database, deployment_id: str) -> tuple[bool, str]:
    with store.read() as session:
        row = session.get_one(DeploymentRow, deployment_id)
        return row.suspended_at is not None, row.suspended_reason


def test_empty_balance_suspends_after_the_grace_and_a_deposit_resumes(store: Database) -> None:
    with store.write() as session:
        credit.deposit(session, "org_1", 6 * DOLLAR, key="p1", actor="x", now=START)
    run(store, "dep_1")
    assert settle(store, START + HOUR) == ()
    assert settle(store, START + 2 * HOUR) == (), "the balance is used up, the grace period begins"
    assert settle(store, START + 3 * HOUR) == ("dep_1",)
    assert state(store, "dep_1") == (True, enforcement.BALANCE_REASON)
    assert settle(store, START + 4 * HOUR) == (), "once"
    with store.write() as session:
        owed = ledger.balance(session, "org_1").owed
        assert owed == 3 * 4_410_000 - 6 * DOLLAR, "what ran in the grace period is owed"
        credit.deposit(session, "org_1", 20 * DOLLAR, key="p2", actor="x", now=START + 4 * HOUR)
    assert settle(store, START + 4 * HOUR) == ("dep_1",)
    assert state(store, "dep_1") == (False, "")
    with store.read() as session:
        actions = [r.action for r in audit.page(session, org_id="org_1") if r.subject == "dep_1"]
    assert actions == ["deployment.resumed", "deployment.suspended"]


@pytest.mark.parametrize("late", [timedelta(0), timedelta(minutes=7), 5 * HOUR])
def test_hard_budget_is_never_passed_however_late_the_pass(store: Database, late: timedelta) -> None:
    """Two replicas use up $10 after 68 min 2.45 s; billing ends there."""
    run(store, "dep_1", replicas=2, org="org_1")
    with store.write() as session:
        credit.deposit(session, "org_1", 1000 * DOLLAR, key="p1", actor="x", now=START)
    limit(store, "deployment", "dep_1", "10")
    settle(store, START + HOUR)
    assert state(store, "dep_1")[0] is False
    at = START + timedelta(minutes=69) + late
    assert settle(store, at) == ("dep_1",)
    assert "bud_deployment of $10 a day is used up" in state(store, "dep_1")[1]
    settle(store, at + HOUR)
    with store.read() as session:
        assert 10 * DOLLAR - 2 <= int(meter.deployment_cost(session, "dep_1", at) * DOLLAR) <= 10 * DOLLAR
        spent = -ledger.balance(session, "org_1").wallet + 1000 * DOLLAR
        assert 10 * DOLLAR - 2 <= spent <= 10 * DOLLAR, "what was posted beyond it came back"
    assert state(store, "dep_1")[0] is True, "a rounding's remainder resumes nothing"


def test_new_period_or_a_raised_budget_lets_it_run_again(store: Database) -> None:
    with store.write() as session:
        credit.deposit(session, "org_1", 1000 * DOLLAR, key="p1", actor="x", now=START)
    run(store, "dep_1")
    run(store, "dep_2", org="org_free")
    limit(store, "org", "org_1", "4")
    assert settle(store, START + HOUR) == ("dep_1",), "the other organisation is not concerned"
    limit(store, "org", "org_1", "4.01")
    assert settle(store, START + HOUR) == (), "a cent does not pay for a minute"
    limit(store, "org", "org_1", "8")
    assert settle(store, START + HOUR) == ("dep_1",)
    run(store, "dep_1", since=START + HOUR)
    assert settle(store, START + 2 * HOUR) == ("dep_1",)
    tomorrow = (START + timedelta(days=1)).replace(hour=0)
    assert settle(store, tomorrow) == ("dep_1",), "a day's budget is whole again at midnight UTC"


def test_what_is_being_deleted_or_was_paid_is_left_alone(store: Database) -> None:
    run(store, "dep_1", org="org_free")
    run(store, "dep_2")
    with store.write() as session:
        deployments.request_delete(session, "dep_2", START + HOUR)
    assert settle(store, START + 30 * HOUR) == ()


def test_a_process_that_lost_the_lead_suspends_nothing(store: Database) -> None:
    run(store, "dep_1")
    limit(store, "org", "org_1", "1")

    def guard(session: Session) -> None:
        raise StaleLease("another process leads")

    with pytest.raises(StaleLease):
        enforcement.enforce(store, START + HOUR, guard=guard)
    assert state(store, "dep_1")[0] is False


def test_the_moment_of_exhaustion() -> None:
    one = Interval("r", Decimal(1), START)
    assert enforcement.exhausted_at(DOLLAR, 0, [(one, 0)], START + HOUR / 2) is None
    assert enforcement.exhausted_at(DOLLAR, 0, [(one, 0)], START + HOUR) == START + HOUR
    assert enforcement.exhausted_at(DOLLAR, 0, [(one, 0), (replace(one), 0)], START + HOUR) == START + HOUR / 2
    assert enforcement.exhausted_at(DOLLAR, DOLLAR, [], START) == START, "nothing runs, and nothing is left"
    assert spend.GRACE == HOUR


@pytest.mark.parametrize(("scope", "scope_id"), [("user", "usr_1"), ("key", "key_1")])
def test_budgets_of_accounts_and_keys_end_what_they_asked_for(store: Database, scope: str, scope_id: str) -> None:
    with store.write() as session:
        credit.deposit(session, "org_1", 1000 * DOLLAR, key="p1", actor="x", now=START)
        deployments.insert(session, deployment_row(START, "dep_1", created_by="usr_1", created_with="key_1"))
        deployments.insert(session, deployment_row(START, "dep_2", created_by="usr_2", created_with="key_2"))
    run(store, "dep_1")
    run(store, "dep_2")
    limit(store, scope, scope_id, "10")
    assert settle(store, START + 2 * HOUR) == ()
    with store.read() as session:
        (budget,) = budgets.list_for_org(session, "org_1")
        assert budgets.usage(session, budget, START).spent == 2 * 4_410_000, "one of the two counts here"
    assert settle(store, START + 3 * HOUR) == ("dep_1",)
    settle(store, START + 4 * HOUR)
    with store.read() as session:
        assert budgets.usage(session, budget, START).spent <= 10 * DOLLAR
