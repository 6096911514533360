"""Deposits, promotional credit, refunds, and the tier that deposits bring."""

from __future__ import annotations

import pytest

from engine.billing import credit
from engine.billing.credit import Deposited, PaidBy
from engine.model.errors import Conflict, InsufficientCredit, InvalidSpec, NotFound
from engine.model.ledger import AccountKind, Balance, Posting, Reason, Source, SourceKind, Transaction
from engine.model.money import MICRODOLLARS
from engine.store import audit, changes, ledger, orgs
from engine.store.database import Database
from tests.fakes.clock import START

DOLLAR = int(MICRODOLLARS)
BY = "operator:root"


def deposit(store: Database, key: str, microdollars: int, org_id: str = "org_1") -> Deposited:
    with store.write() as session:
        return credit.deposit(session, org_id, microdollars, key=key, actor=BY, now=START)


def refund(store: Database, id: str, microdollars: int | None = None, key: str = "r1") -> ledger.Posted:
    with store.write() as session:
        return credit.refund(session, id, microdollars, key=key, actor=BY, now=START)


def used(store: Database, key: str, amount: int) -> str:
    lines = (Posting(AccountKind.WALLET, -amount), Posting(AccountKind.REVENUE, amount))
    cause = Source(SourceKind.METER, "m")
    with store.write() as session:
        charge = Transaction(key, "org_1", Reason.USAGE, cause, lines, START, "system:billing", may_owe=True)
        return ledger.post(session, charge, now=START).id


def balance(store: Database) -> Balance:
    with store.read() as session:
        return ledger.balance(session, "org_1")


def test_five_dollars_deposited_make_an_organisation_pro(store: Database) -> None:
    assert not deposit(store, "p1", 3 * DOLLAR).became_pro
    assert not deposit(store, "p1", 3 * DOLLAR).is_new, "a payment delivered twice is one payment"
    with store.write() as session:
        credit.promote(session, "org_1", 10 * DOLLAR, key="phone/1", actor="system:identity", now=START)
        assert orgs.get(session, "org_1").tier == "basic"  # type: ignore[union-attr]
        done = credit.deposit(
            session, "org_1", 2 * DOLLAR, key="pi_1", actor="system:stripe", now=START, paid_by=PaidBy.STRIPE
        )
        assert done.became_pro
        assert orgs.get(session, "org_1").tier == "pro"  # type: ignore[union-attr]
    assert not deposit(store, "p3", DOLLAR).became_pro
    assert balance(store) == Balance(wallet=16 * DOLLAR)
    with store.read() as session:
        assert credit.deposits_microdollars(session, "org_1") == 6 * DOLLAR
        assert credit.deposits_microdollars(session, "org_2") == 0
        actions = [row.action for row in audit.page(session, org_id="org_1")]
        assert actions == [
            "credit.deposited", "credit.deposited", "org.tier_changed", "credit.promoted", "credit.deposited",
        ]  # fmt: skip
        assert audit.first_broken(session) is None
        assert ("org", "org_1") in {(c.kind, c.key) for c in changes.since(session, 0)}
        accounts = ledger.accounts(session, "org_1")
        assert (accounts[AccountKind.CASH_MANUAL], accounts[AccountKind.CASH_STRIPE]) == (-4 * DOLLAR, -2 * DOLLAR)


def test_an_operators_tier_is_not_touched(store: Database) -> None:
    with store.write() as session:
        orgs.get(session, "org_1").tier = "enterprise"  # type: ignore[union-attr]
    assert not deposit(store, "p1", 50 * DOLLAR).became_pro
    with store.read() as session:
        assert orgs.get(session, "org_1").tier == "enterprise"  # type: ignore[union-attr]


@pytest.mark.parametrize("microdollars", [0, -1, 10**18])
def test_amounts_that_cannot_be_leave_nothing(store: Database, microdollars: int) -> None:
    with pytest.raises(InvalidSpec):
        deposit(store, "p1", microdollars)
    with pytest.raises(NotFound):
        deposit(store, "p1", DOLLAR, "org_nobody")
    assert balance(store) == Balance()


def test_usage_is_refunded_to_the_wallet_and_never_twice(store: Database) -> None:
    deposit(store, "p1", 100)
    charge = used(store, "u1", 60)
    refund(store, charge, 20)
    refund(store, charge, 20)
    assert balance(store).wallet == 60
    with pytest.raises(Conflict, match="can be refunded"):
        refund(store, charge, 41, "r2")
    with pytest.raises(Conflict, match="idempotency key"):
        refund(store, charge, 21)
    with pytest.raises(InvalidSpec):
        refund(store, charge, -5, "r2")
    refund(store, charge, None, "r2")
    refund(store, charge, None, "r2")
    assert balance(store).wallet == 100
    with pytest.raises(Conflict):
        refund(store, charge, None, "r3")
    with store.read() as session:
        accounts = ledger.accounts(session, "org_1")
        assert (accounts[AccountKind.REVENUE], accounts[AccountKind.REFUNDS]) == (60, -60)
        assert {row.reverses for row in ledger.reversals(session, charge)} == {charge}


def test_a_refund_pays_what_is_owed_first(store: Database) -> None:
    deposit(store, "p1", 10)
    charge = used(store, "u1", 60)
    assert balance(store) == Balance(wallet=0, owed=50)
    refund(store, charge)
    assert balance(store) == Balance(wallet=10)


def test_a_deposit_is_paid_back_only_while_it_is_there(store: Database) -> None:
    done = deposit(store, "p1", 100)
    used(store, "u1", 60)
    with pytest.raises(InsufficientCredit):
        refund(store, done.transaction_id)
    refund(store, done.transaction_id, 40)
    refund(store, done.transaction_id, 40)
    assert balance(store).wallet == 0
    with store.read() as session:
        assert ledger.accounts(session, "org_1")[AccountKind.CASH_MANUAL] == -60
        assert credit.deposits_microdollars(session, "org_1") == 100


def test_a_credit_limit_is_not_paid_out(store: Database) -> None:
    done = deposit(store, "p1", 100, "org_free")
    with store.write() as session:
        lines = (Posting(AccountKind.WALLET, -80), Posting(AccountKind.REVENUE, 80))
        cause = Source(SourceKind.METER, "m")
        ledger.post(session, Transaction("u", "org_free", Reason.USAGE, cause, lines, START, "x"), now=START)
    with pytest.raises(InsufficientCredit):
        refund(store, done.transaction_id)


def test_what_was_never_paid_is_not_refunded(store: Database) -> None:
    with store.write() as session:
        gift = credit.promote(session, "org_1", 100, key="k", actor=BY, now=START)
    with pytest.raises(Conflict, match="only usage"):
        refund(store, gift.id)
    with pytest.raises(NotFound):
        refund(store, "txn_none")
    done = deposit(store, "p1", 100)
    with pytest.raises(NotFound), store.write() as session:
        credit.refund(session, done.transaction_id, key="r", actor=BY, now=START, org_id="org_2")
