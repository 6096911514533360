"""Who may pay is told once when money runs short, out, and comes back."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest

from engine.billing import credit, spend, warnings
from engine.billing.spend import Change, SpendState, Standing
from engine.model.access import Role
from engine.store import accounts, mails, memberships, usage
from engine.store.account_tables import UserRow
from engine.store.database import Database
from engine.store.sealing import Sealer
from engine.store.tables import UsageIntervalRow
from tests.fakes.clock import START, FakeClock

HOUR = timedelta(hours=1)
DOLLAR = 1_000_000


def test_payers_are_told_once_for_each_change(store: Database) -> None:
    sealer, clock, numbers = Sealer(b"x" * 32), FakeClock(), itertools.count()
    tell = warnings.MailWarnings(sealer, clock, lambda kind: f"{kind}_{next(numbers)}", "http://yard.test")
    with store.write() as session:
        for name, role in (("owner", Role.OWNER), ("payer", Role.BILLING), ("dev", Role.DEVELOPER)):
            accounts.insert(session, UserRow(id=name, email=f"{name}@example.com", created_at=START))
            memberships.insert(session, org_id="org_1", user_id=name, role=role, now=START)
        credit.deposit(session, "org_1", 10 * DOLLAR, key="p1", actor="x", now=START)
        usage.insert(session, UsageIntervalRow(
            id="use_1", org_id="org_1", deployment_id="dep_1", replica="r", gpu_type="h100", hourly_rate_usd="4",
            started_at=START,
        ))  # fmt: skip

    def told(at: timedelta) -> list[tuple[str, str]]:
        spend.observe(store, START + at, grace=HOUR, tell=tell)
        with store.write() as session:
            rows = mails.claim(session, START + timedelta(days=9), HOUR)
        with store.write() as session:
            for row in rows:
                assert "http" in sealer.open(row.body_sealed)
                mails.sent(session, row.id)
        return sorted((row.to_address, row.subject) for row in rows)

    both = ("owner@example.com", "payer@example.com")
    assert told(HOUR) == [(to, "The balance of org_1 is running low") for to in both]
    assert told(2 * HOUR) == []
    assert told(2.5 * HOUR) == [(to, "The balance of org_1 is used up") for to in both], "to the minute, not the hour"
    assert told(3 * HOUR) == []
    assert told(3.5 * HOUR) == [(to, "org_1 is suspended") for to in both]


@pytest.mark.parametrize(
    ("before", "after", "subject"),
    [
        (SpendState.OK, SpendState.WARNED, "running low"),
        (SpendState.GRACE, SpendState.WARNED, "running low"),
        (SpendState.WARNED, SpendState.OK, None),
        (SpendState.DRAINED, SpendState.OK, "runs again"),
        (SpendState.GRACE, SpendState.OK, "runs again"),
    ],
)
def test_what_is_worth_a_mail(before: SpendState, after: SpendState, subject: str | None) -> None:
    letter = warnings.letter_about("Acme", Change("org_1", before, Standing(after)), "http://yard.test")
    assert (letter is None) == (subject is None)
    assert letter is None or (subject or "") in letter.subject
