"""A thousand requests at once in three processes pass no budget and no balance, and none is refused for nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from engine.billing import credit
from engine.model.ledger import AccountKind
from engine.store import budgets, ledger, ledger_audit, orgs
from engine.store.database import Database
from engine.store.ledger_tables import BudgetRow
from engine.store.tables import OrgRow
from tests.fakes.clock import START

PROCESSES = 3
REQUESTS = 1000
SHARED = 40
"""Requests that two processes deliver: retries through another worker."""

COST = 7
TIMEOUT_SECONDS = 150

pytestmark = pytest.mark.integration


@pytest.fixture
def books(database: Database) -> Iterator[Database]:
    with database.write() as session:
        orgs.insert(session, OrgRow(id="org_1", name="Acme", credit_limit_microdollars=0, created_at=START))
    yield database
    with database.read() as session:
        assert ledger_audit.verify(session) == []


def deposit(books: Database, microdollars: int) -> None:
    with books.write() as session:
        credit.deposit(session, "org_1", microdollars, key="p", actor="x", now=START)


def limit(books: Database, id: str, scope: str, scope_id: str, microdollars: int) -> None:
    with books.write() as session:
        row = BudgetRow(
            id=id, org_id="org_1", scope=scope, scope_id=scope_id, period="month", limit_microdollars=microdollars,
            created_at=START, updated_at=START,
        )  # fmt: skip
        budgets.put(session, row)


def spend_at_once(url: str, *, settled_for: int) -> dict[int, set[str]]:
    """Request → what came of it in the processes that made it."""
    share = REQUESTS // PROCESSES + 1
    outcomes: dict[int, set[str]] = {}
    with ExitStack() as stack:
        running = []
        for index in range(PROCESSES):
            own = range(index * share, min(REQUESTS, (index + 1) * share))
            twice = [(own.stop + n) % REQUESTS for n in range(SHARED)]
            plan = {"url": url, "requests": [*own, *twice], "microdollars": COST, "settled_for": settled_for}
            command = [sys.executable, "-m", "tests.fakes.spending_process", json.dumps(plan)]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            running.append(stack.enter_context(process))
            stack.callback(process.kill)
        for _phase in ("ask", "pay"):
            for process in running:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
            for process in running:
                assert process.stdin is not None
                process.stdin.write("go\n")
                process.stdin.flush()
        results = []
        for process in running:
            out, _ = process.communicate(timeout=TIMEOUT_SECONDS)
            assert process.returncode == 0
            results.append(json.loads(out))
    for result in results:
        for number, outcome in result.items():
            outcomes.setdefault(int(number), set()).add(outcome)
    assert len(outcomes) == REQUESTS
    return outcomes


@pytest.mark.timeout(400)
def test_a_hard_budget_is_used_up_and_not_passed(books: Database) -> None:
    deposit(books, 10**9)
    limit(books, "bud_key", "key", "key_1", 2000)
    limit(books, "bud_org", "org", "org_1", 5000)
    outcomes = spend_at_once(books.url, settled_for=5)
    held = [number for number, outcome in outcomes.items() if "held" in outcome]
    assert len(held) == 2000 // COST, "not one more, and none refused while there was room"
    with books.read() as session:
        for id in ("bud_key", "bud_org"):
            row = budgets.usage(session, budgets.get(session, id, org_id="org_1"), START)
            assert (row.reserved, row.spent) == (0, len(held) * 5)
        have = ledger.accounts(session, "org_1")
    assert have[AccountKind.REVENUE] == len(held) * 5
    assert have[AccountKind.WALLET] == 10**9 - len(held) * 5
    assert have[AccountKind.HELD] == 0


@pytest.mark.timeout(400)
def test_a_prepaid_balance_is_used_up_and_not_passed(books: Database) -> None:
    deposit(books, 1000)
    outcomes = spend_at_once(books.url, settled_for=-1)
    assert sum("held" in outcome for outcome in outcomes.values()) == 1000 // COST
    with books.read() as session:
        balance = ledger.balance(session, "org_1")
    assert (balance.wallet, balance.held) == (1000 % COST, 1000 - 1000 % COST)
