"""Operators close accounts, give tiers and credit limits; the audit log knows of each and cannot be changed unseen."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlmodel import Session

from engine.identity import operators
from engine.identity.issue import issue_key
from engine.identity.keys import KeyHasher
from engine.model.access import Role
from engine.model.errors import Conflict, NotFound
from engine.model.tiers import Tier
from engine.store import accounts, audit, keys, memberships, orgs
from engine.store.account_tables import UserRow
from engine.store.database import Database
from tests.fakes.clock import FakeClock
from tests.fakes.rows import org_row

ACTOR = "operator:ann"


def account(session: Session, clock: FakeClock, name: str, *, is_operator: bool = False) -> UserRow:
    row = UserRow(id=f"usr_{name}", email=f"{name}@example.com", is_operator=is_operator, created_at=clock.now())
    return accounts.insert(session, row)


def test_closed_account_loses_its_keys_and_can_be_opened_again(database: Database, clock: FakeClock) -> None:
    with database.write() as session:
        orgs.insert(session, org_row(clock.now()))
        account(session, clock, "ann", is_operator=True)
        account(session, clock, "bob")
        memberships.insert(session, org_id="org_1", user_id="usr_bob", role=Role.DEVELOPER, now=clock.now())
        made, _ = issue_key(session, KeyHasher(b"x" * 32), key_id="key_1", org_id="org_1", name="k", now=clock.now())
        made.created_by = "usr_bob"
    with database.write() as session:
        assert operators.disable(session, "Bob@example.com ", actor=ACTOR, now=clock.now()).disabled_at == clock.now()
    with database.read() as session:
        key = keys.get(session, "key_1")
        assert key is not None and key.revoked_at is not None
        shown = {row["id"]: row for row in operators.accounts(session)}
        assert shown["usr_bob"]["organisations"] == "org_1 (developer)" and shown["usr_bob"]["disabled_at"]
    with database.write() as session:
        assert operators.enable(session, "usr_bob", actor=ACTOR, now=clock.now()).disabled_at is None
        assert [row.action for row in audit.page(session)] == ["account.enabled", "account.disabled"]
        with pytest.raises(NotFound, match="no account nobody"):
            operators.disable(session, "nobody", actor=ACTOR, now=clock.now())


def test_last_operator_stays(database: Database, clock: FakeClock) -> None:
    with database.write() as session:
        account(session, clock, "ann", is_operator=True)
        account(session, clock, "bob")
        with pytest.raises(Conflict, match="only operator"):
            operators.disable(session, "usr_ann", actor=ACTOR, now=clock.now())
        with pytest.raises(Conflict, match="only operator"):
            operators.set_operator(session, "usr_ann", False, actor=ACTOR, now=clock.now())
        operators.set_operator(session, "usr_bob", True, actor=ACTOR, now=clock.now())
        assert not operators.set_operator(session, "usr_ann", False, actor=ACTOR, now=clock.now()).is_operator


def test_tier_and_credit_limit_are_told_once(database: Database, clock: FakeClock) -> None:
    with database.write() as session:
        orgs.insert(session, org_row(clock.now()))
        for _ in range(2):
            operators.set_tier(session, "org_1", Tier.BASIC, actor=ACTOR, now=clock.now())
            operators.set_credit_limit(session, "org_1", 5_000_000, actor=ACTOR, now=clock.now())
    with database.read() as session:
        assert [row.details for row in audit.page(session, org_id="org_1")] == [
            {"from": None, "to": 5_000_000}, {"from": "enterprise", "to": "basic"},
        ]  # fmt: skip
        (shown,) = operators.organisations(session)
        assert (shown["tier"], str(shown["credit_limit_usd"]), str(shown["available_usd"])) == ("basic", "5", "5")


@pytest.mark.parametrize(
    ("damage", "row"),
    [
        ("UPDATE audit SET actor = 'operator:eve' WHERE seq = 2", 2),
        ("DELETE FROM audit WHERE seq = 2", 2),
        ("DELETE FROM audit WHERE seq = 1", 1),
        ("UPDATE audit SET details = '{}' WHERE seq = 3", 3),
    ],
)
def test_a_changed_audit_log_is_noticed(database: Database, clock: FakeClock, damage: str, row: int) -> None:
    with database.write() as session:
        for step in range(4):
            at = clock.now() + timedelta(microseconds=step)
            audit.record(session, at=at, actor=ACTOR, action="org.made", subject=f"org_{step}", details={"step": step})
    with database.read() as session:
        assert audit.first_broken(session, batch=3) is None
    with database.write() as session:
        for trigger in ("audit_refuses_update", "audit_refuses_delete") if database.is_sqlite else ():
            session.connection().execute(text(f"DROP TRIGGER {trigger}"))
        if not database.is_sqlite:
            session.connection().execute(text("DROP TRIGGER audit_append_only ON audit"))
        session.connection().execute(text(damage))
    with database.read() as session:
        assert audit.first_broken(session, batch=3) == row
