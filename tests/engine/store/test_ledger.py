"""The books: what is posted, what is refused, what is found when a hand was in them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from engine.model.errors import Conflict, InsufficientCredit, InvalidSpec, NotFound
from engine.model.ledger import AccountKind, Balance, Posting, Reason, Source, SourceKind, Transaction, parse_usd
from engine.store import ledger, ledger_audit, orgs
from engine.store.database import Database
from engine.store.ledger import LedgerMismatch
from engine.store.tables import OrgRow
from tests.fakes.clock import START

CASH, WALLET, REVENUE = AccountKind.CASH_MANUAL, AccountKind.WALLET, AccountKind.REVENUE


@pytest.fixture
def store(database: Database) -> Iterator[Database]:
    with database.write() as session:
        for id, limit in (("org_1", 0), ("org_2", 500), ("org_free", None)):
            orgs.insert(session, OrgRow(id=id, name=id, credit_limit_microdollars=limit, created_at=START))
    yield database
    with database.read() as session:
        assert ledger_audit.verify(session) == []
        assert sum(ledger.totals(session).values()) == 0


def moved(
    key: str, amount: int, *, source: AccountKind = CASH, target: AccountKind = WALLET, org_id: str = "org_1",
    may_owe: bool = False,
) -> Transaction:  # fmt: skip
    lines = (Posting(source, -amount), Posting(target, amount))
    cause = Source(SourceKind.OPERATOR, "dep")
    return Transaction(key, org_id, Reason.DEPOSIT, cause, lines, START, "operator:root", may_owe=may_owe)


def used(key: str, amount: int, org_id: str = "org_1", may_owe: bool = False) -> Transaction:
    return moved(key, amount, source=WALLET, target=REVENUE, org_id=org_id, may_owe=may_owe)


def post(store: Database, transaction: Transaction) -> ledger.Posted:
    with store.write() as session:
        return ledger.post(session, transaction, now=START)


def balance(store: Database, org_id: str = "org_1") -> Balance:
    with store.read() as session:
        return ledger_audit.verified_balance(session, org_id)


def test_a_transaction_moves_money_once_and_forever(store: Database) -> None:
    first = post(store, moved("deposit/1", 1000))
    again = post(store, moved("deposit/1", 1000))
    assert (first.is_new, again.is_new) == (True, False)
    assert first.id == again.id
    assert balance(store) == Balance(wallet=1000)
    assert balance(store).credits == Decimal("0.1")
    with store.read() as session:
        row = ledger.transaction(session, first.id, org_id="org_1")
        assert row is not None and (row.reason, row.actor) == ("deposit", "operator:root")
        assert ledger.postings(session, [first.id])[first.id] == [Posting(CASH, -1000), Posting(WALLET, 1000)]
        assert ledger.transaction(session, first.id, org_id="org_2") is None


def test_a_key_used_for_something_else_is_refused(store: Database) -> None:
    post(store, moved("deposit/1", 1000))
    with pytest.raises(Conflict, match="deposit/1"):
        post(store, moved("deposit/1", 1001))
    with pytest.raises(Conflict, match="deposit/1"):
        post(store, moved("deposit/1", 1000, org_id="org_2"))
    assert balance(store).wallet == 1000


def test_what_the_wallet_does_not_cover_is_refused_whole(store: Database) -> None:
    post(store, moved("deposit/1", 1000))
    with store.write() as session:
        with pytest.raises(InsufficientCredit) as refusal:
            ledger.post_all(session, [used("use/1", 600), used("use/2", 600)], now=START)
        ledger.post(session, used("use/3", 100), now=START)  # the caller goes on: nothing of the refused two is left
    assert refusal.value.details == {"needed_microdollars": 600, "available_microdollars": 400}
    assert balance(store).wallet == 900
    with store.read() as session:
        assert [row.key for row in ledger.page(session, "org_1")].count("use/1") == 0


def test_a_credit_limit_is_how_far_below_zero_a_wallet_goes(store: Database) -> None:
    post(store, used("use/1", 500, "org_2"))
    with pytest.raises(InsufficientCredit):
        post(store, used("use/2", 1, "org_2"))
    post(store, used("use/1/free", 10**12, "org_free"))
    assert balance(store, "org_2") == Balance(wallet=-500, credit_limit=500)
    assert balance(store, "org_2").available == 0
    assert balance(store, "org_free").available is None


def test_usage_beyond_the_wallet_is_owed_and_the_next_deposit_pays_it(store: Database) -> None:
    post(store, moved("deposit/1", 100))
    post(store, used("use/1", 250, may_owe=True))
    assert balance(store) == Balance(wallet=0, owed=150)
    post(store, moved("deposit/2", 40))
    assert balance(store) == Balance(wallet=0, owed=110)
    post(store, moved("deposit/3", 200))
    assert balance(store) == Balance(wallet=90)
    again = post(store, used("use/1", 250, may_owe=True))
    assert not again.is_new, "how it was split is the moment's, what was asked for is the same"


def test_many_transactions_of_many_organisations_are_posted_together(store: Database) -> None:
    with store.write() as session:
        posted = ledger.post_all(
            session,
            [moved("a", 10), moved("b", 20, org_id="org_2"), moved("a", 10), used("c", 5), moved("d", 7)], now=START,
        )  # fmt: skip
    assert [p.is_new for p in posted] == [True, True, True, True, True]
    assert balance(store).wallet == 12
    with store.read() as session:
        assert ledger.accounts(session, "org_1")[CASH] == -17
        assert ledger.totals(session)[CASH] == -37


def test_pages_go_back_in_time(store: Database) -> None:
    with store.write() as session:
        for number in range(5):
            when = START + timedelta(seconds=number // 2)
            ledger.post(session, moved(f"d/{number}", 1), now=when)
    with store.read() as session:
        first = ledger.page(session, "org_1", limit=3)
        rest = ledger.page(session, "org_1", limit=3, after=first[-1].id)
        assert len({row.key for row in [*first, *rest]}) == 5
        assert first[0].key == "d/4"
        assert ledger.page(session, "org_1", reasons=["usage"]) == []


def test_unknown_organisations_have_no_books(store: Database) -> None:
    with pytest.raises(NotFound), store.write() as session:
        ledger.post(session, moved("x", 1, org_id="org_nobody"), now=START)
    with pytest.raises(NotFound), store.read() as session:
        ledger.balance(session, "org_nobody")
    assert balance(store, "org_2") == Balance(credit_limit=500), "an organisation without postings has nothing"


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE ledger_postings SET amount = 1",
        "DELETE FROM ledger_postings",
        "UPDATE ledger_transactions SET actor = 'me'",
        "DELETE FROM ledger_transactions",
    ],
)
def test_the_database_refuses_to_change_what_was_posted(store: Database, change: str) -> None:
    post(store, moved("deposit/1", 1000))
    with pytest.raises(DatabaseError, match="append-only"), store.write() as session:
        session.connection().execute(text(change))
    assert balance(store).wallet == 1000


def test_a_wrong_balance_is_loud(database: Database) -> None:
    with database.write() as session:
        orgs.insert(session, OrgRow(id="org_1", name="org_1", created_at=START))
        ledger.post(session, moved("deposit/1", 1000), now=START)
        assert ledger_audit.checkpoint(session, START, at_least=1) == 2
        assert ledger_audit.checkpoint(session, START, at_least=1) == 0
        ledger.post(session, moved("deposit/2", 1000), now=START)
    assert balance(database).wallet == 2000
    with database.write() as session:
        session.connection().execute(text("UPDATE ledger_accounts SET balance = 5000 WHERE kind = 'wallet'"))
    with database.write() as session:
        with pytest.raises(LedgerMismatch, match="org_1/wallet"):
            ledger_audit.verified_balance(session, "org_1")
        with pytest.raises(LedgerMismatch, match="org_1/wallet"):
            ledger_audit.checkpoint(session, START, at_least=1)
        assert [f.subject for f in ledger_audit.verify(session)] == ["org_1/wallet"]


def test_a_posting_that_was_taken_out_is_found(database: Database) -> None:
    with database.write() as session:
        orgs.insert(session, OrgRow(id="org_1", name="org_1", created_at=START))
        for number in range(3):
            ledger.post(session, moved(f"d/{number}", 10), now=START)
        ledger_audit.checkpoint(session, START, at_least=1)
        # A hand that knows of the triggers, and of the kept balance.
        if database.is_sqlite:
            session.connection().execute(text("DROP TRIGGER ledger_postings_refuses_delete"))
        else:
            session.connection().execute(text("ALTER TABLE ledger_postings DISABLE TRIGGER ALL"))
        session.connection().execute(text("DELETE FROM ledger_postings WHERE seq = 2 AND kind = 'wallet'"))
    with database.read() as session:
        found = {f.subject: f.message for f in ledger_audit.verify(session)}
    assert "2 postings are there and 3 were made" in found["org_1/wallet"] or "posting 3" in found["org_1/wallet"]
    assert any("sum to -10" in message for message in found.values())


def test_transactions_that_cannot_be_are_not_made() -> None:
    source = Source(SourceKind.OPERATOR, "x")

    def make(*lines: Posting, key: str = "k") -> Transaction:
        return Transaction(key, "org_1", Reason.DEPOSIT, source, lines, START, "me")

    with pytest.raises(ValueError, match="sum to 1"):
        make(Posting(CASH, -9), Posting(WALLET, 10))
    with pytest.raises(ValueError, match="two postings"):
        make()
    with pytest.raises(ValueError, match="has a key"):
        make(Posting(CASH, -1), Posting(WALLET, 1), key="")
    with pytest.raises(ValueError, match="twice"):
        make(Posting(CASH, -2), Posting(WALLET, 1), Posting(WALLET, 1))
    with pytest.raises(ValueError, match="splits"):
        make(Posting(CASH, -1), Posting(AccountKind.RECEIVABLE, 1))
    with pytest.raises(ValueError, match="nothing"):
        Posting(CASH, 0)


@pytest.mark.parametrize("amount", ["-1", "0", "1e30", "NaN", "Infinity", "twelve", "0.0000001", ""])
def test_amounts_that_cannot_be_are_refused(amount: str) -> None:
    with pytest.raises(InvalidSpec):
        parse_usd(amount)


def test_amounts_are_dollars() -> None:
    assert parse_usd("12.50") == 12_500_000
    assert parse_usd(5, "usd") == 5_000_000
    assert parse_usd("0.000001") == 1
    with pytest.raises(InvalidSpec, match="EUR"):
        parse_usd("1", "EUR")
