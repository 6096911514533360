"""Sign-ups at the same moment: one operator, one account per address, one account per number."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlmodel import select

from engine.identity import attempts, phone
from engine.identity.attempts import Limit
from engine.identity.context import AccountPolicy, Identity, SignUp
from engine.identity.sessions import Client
from engine.identity.sign_up import sign_up
from engine.model.errors import Conflict, Forbidden, RateLimited
from engine.store import audit, invitations
from engine.store.account_tables import UserRow
from engine.store.org_tables import InvitationRow, MembershipRow
from engine.store.tables import OrgRow
from tests.fakes.clock import FakeClock
from tests.fakes.identity import Promotions, ReadableSms

HERE = Client("192.0.2.1")
PASSWORD = "a tidy analytical engine"


async def outcomes(*work: object) -> list[object]:
    return await asyncio.gather(*work, return_exceptions=True)  # type: ignore[call-overload, no-any-return]


async def test_of_simultaneous_first_accounts_one_operates_the_installation(identity: Identity) -> None:
    made = await outcomes(*(sign_up(identity, f"u{n}@example.com", PASSWORD, f"u{n}", HERE) for n in range(6)))
    assert all(isinstance(user, UserRow) for user in made), made
    with identity.database.read() as session:
        assert [u.is_operator for u in session.exec(select(UserRow))].count(True) == 1
        tiers = sorted(org.tier for org in session.exec(select(OrgRow)))
        assert tiers == ["basic"] * 5 + ["enterprise"]
        assert len(session.exec(select(MembershipRow)).all()) == 6
        assert audit.first_broken(session) is None


async def test_one_address_at_the_same_time_is_one_account(identity: Identity) -> None:
    made = await outcomes(*(sign_up(identity, "ada@example.com", PASSWORD, "", HERE) for _ in range(4)))
    assert sorted(type(m).__name__ for m in made) == ["Conflict"] * 3 + ["UserRow"]
    with identity.database.read() as session:
        assert len(session.exec(select(OrgRow)).all()) == 1


async def test_one_number_at_the_same_time_verifies_one_account_and_earns_one_credit(
    identity: Identity, sms: ReadableSms, promotions: Promotions
) -> None:
    people = [await sign_up(identity, f"u{n}@example.com", PASSWORD, "", HERE) for n in range(3)]
    codes = []
    for user in people:
        await phone.send_code(identity, user, "+14155552671", HERE)
        codes.append(sms.code())
    done = await outcomes(*(phone.verify_code(identity, u, c, HERE) for u, c in zip(people, codes, strict=True)))
    assert sorted(map(str, (type(d).__name__ for d in done))) == ["Conflict", "Conflict", "bool"]
    assert len(promotions.granted) == 1


async def test_invited_address_may_sign_up_and_no_other(identity: Identity, clock: FakeClock) -> None:
    operator = await sign_up(identity, "ada@example.com", PASSWORD, "", HERE)
    by_invitation = replace(identity, policy=AccountPolicy(sign_up=SignUp.INVITED))
    with identity.database.write() as session:
        org = session.exec(select(OrgRow)).one()
        row = InvitationRow(
            id="inv_1", org_id=org.id, email="bob@example.com", role="viewer", token_hash="x", invited_by=operator.id,
            created_at=clock.now(), expires_at=clock.now() + timedelta(days=1),
        )  # fmt: skip
        invitations.insert(session, row)
    with pytest.raises(Forbidden, match="invitation"):
        await sign_up(by_invitation, "eve@example.com", PASSWORD, "", HERE)
    assert not (await sign_up(by_invitation, "Bob@example.com", PASSWORD, "", HERE)).is_operator
    clock.advance(2 * 86400)
    with pytest.raises(Conflict):
        await sign_up(by_invitation, "bob@example.com", PASSWORD, "", HERE)


async def test_expired_invitation_lets_nobody_in(identity: Identity, clock: FakeClock) -> None:
    await test_invited_address_may_sign_up_and_no_other(identity, clock)
    by_invitation = replace(identity, policy=AccountPolicy(sign_up=SignUp.INVITED))
    with identity.database.write() as session:
        session.get_one(InvitationRow, "inv_1").email = "late@example.com"
    with pytest.raises(Forbidden, match="invitation"):
        await sign_up(by_invitation, "late@example.com", PASSWORD, "", HERE)


async def test_attempts_at_the_same_time_are_all_counted(identity: Identity, clock: FakeClock) -> None:
    limit = Limit("test", 5, timedelta(minutes=1))

    def attempt() -> None:
        attempts.charge(identity.database, identity.hasher, clock.now(), (limit, "x"))

    tried = await outcomes(*(asyncio.to_thread(attempt) for _ in range(12)))
    assert sum(isinstance(t, RateLimited) for t in tried) == 7
    clock.advance(60)
    attempt()


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("testclient", "testclient"),
    ],
)
def test_client_is_an_address_or_one_customers_network(address: str, counted: str) -> None:
    assert attempts.client_of(address) == counted
