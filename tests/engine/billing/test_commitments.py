"""Discounts above a monthly spend: the same however often and however late they are worked out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.billing import commitments
from engine.model.errors import InvalidSpec
from engine.model.ledger import AccountKind, Posting, Reason, Source, SourceKind, Transaction
from engine.store import ledger
from engine.store.database import Database

NOVEMBER = datetime(2026, 11, 10, tzinfo=UTC)
DOLLAR = 1_000_000


def use(store: Database, name: str, dollars: int, at: datetime) -> None:
    amount = dollars * DOLLAR
    lines = (Posting(AccountKind.WALLET, -amount), Posting(AccountKind.REVENUE, amount))
    source = Source(SourceKind.METER, name)
    with store.write() as session:
        ledger.post(
            session, Transaction(name, "org_free", Reason.USAGE, source, lines, at, "system:billing", True), now=at
        )


def agree(store: Database, above: int, percent: str, now: datetime = NOVEMBER) -> None:
    with store.write() as session:
        commitments.agree(
            session, "org_free", above_microdollars=above * DOLLAR, percent=Decimal(percent), actor="me", now=now
        )


def revenue(store: Database) -> float:
    with store.read() as session:
        return ledger.accounts(session, "org_free").get(AccountKind.REVENUE, 0) / DOLLAR


def test_what_is_above_costs_less_as_the_month_goes(store: Database) -> None:
    agree(store, 5000, "20")
    use(store, "a", 4000, NOVEMBER)
    assert commitments.give(store, NOVEMBER) == 0 and revenue(store) == 4000
    use(store, "b", 2000, NOVEMBER + timedelta(hours=1))
    assert commitments.give(store, NOVEMBER + timedelta(minutes=30)) == 0
    assert commitments.give(store, NOVEMBER + timedelta(hours=2)) == 1 and revenue(store) == 5800
    assert commitments.give(store, NOVEMBER + timedelta(hours=4)) == 0
    use(store, "c", 1000, NOVEMBER + timedelta(hours=5))
    assert commitments.give(store, NOVEMBER + timedelta(hours=6)) == 1 and revenue(store) == 6600


def test_usage_that_arrives_late_counts_in_its_month(store: Database) -> None:
    agree(store, 100, "50")
    december = datetime(2026, 12, 3, tzinfo=UTC)
    use(store, "november", 200, NOVEMBER)
    use(store, "december", 100, december)
    assert commitments.give(store, december) == 1 and revenue(store) == 250
    use(store, "late", 10, NOVEMBER)
    assert commitments.give(store, december + timedelta(hours=2)) == 1 and revenue(store) == 255
    use(store, "too late", 10, NOVEMBER)
    assert commitments.give(store, december + timedelta(days=20)) == 0 and revenue(store) == 265


def test_month_before_the_agreement_stays_as_it_is(store: Database) -> None:
    use(store, "october", 1000, datetime(2026, 10, 31, 23, 59, tzinfo=UTC))
    agree(store, 0, "10", datetime(2026, 11, 1, 5, tzinfo=UTC))
    use(store, "november", 10, datetime(2026, 11, 1, tzinfo=UTC))
    assert commitments.give(store, datetime(2026, 11, 1, 6, tzinfo=UTC)) == 1 and revenue(store) == 1009


def test_other_terms_take_back_what_was_too_much(store: Database) -> None:
    agree(store, 0, "10")
    use(store, "a", 100, NOVEMBER)
    commitments.give(store, NOVEMBER)
    agree(store, 0, "5")
    assert commitments.give(store, NOVEMBER + timedelta(hours=2)) == 1 and revenue(store) == 95


def test_agreement_ends_with_its_month(store: Database) -> None:
    agree(store, 0, "10")
    with store.write() as session:
        assert commitments.end(session, "org_free", now=NOVEMBER)
        assert not commitments.end(session, "org_free", now=NOVEMBER)
        assert not commitments.end(session, "org_1", now=NOVEMBER)
    december = datetime(2026, 12, 2, tzinfo=UTC)
    use(store, "november", 100, NOVEMBER)
    use(store, "december", 100, december)
    commitments.give(store, december)
    assert revenue(store) == 190


@pytest.mark.parametrize(
    ("above", "percent"), [(-1, "10"), (0, "0"), (0, "100.01"), (0, "-5"), (0, "1.234"), (0, "NaN")]
)
def test_terms_that_cannot_be(store: Database, above: int, percent: str) -> None:
    with pytest.raises(InvalidSpec):
        agree(store, above, percent)


@given(st.integers(0, 10**13), st.integers(0, 10**13), st.integers(1, 10_000))
def test_discount_is_never_more_than_what_lies_above(spent: int, above: int, hundredths: int) -> None:
    percent = Decimal(hundredths) / 100
    found = commitments.due(spent, above, percent)
    assert 0 <= found <= max(0, spent - above)
    assert abs(Decimal(found) - max(0, spent - above) * percent / 100) <= Decimal("0.5")
