"""Makes accounts, each with a personal organisation. The first account of an installation is its operator's."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from sqlmodel import Session

from engine.identity import emails, letters, outbox, verifications
from engine.identity.attempts import SIGN_UP_PER_CLIENT, charge, client_of
from engine.identity.context import Identity, SignUp
from engine.identity.passwords import require_acceptable
from engine.identity.sessions import Client
from engine.identity.verifications import Kind
from engine.model.access import Role
from engine.model.errors import Conflict, Forbidden, InvalidSpec
from engine.model.tiers import Tier
from engine.store import accounts, audit, memberships, orgs
from engine.store.account_tables import UserRow
from engine.store.tables import OrgRow


@dataclass(frozen=True)
class NewAccount:
    """Who an account is made for. Exactly one of the last two proves it: a password, or a verified address."""

    email: str
    name: str
    password_hash: str | None = None
    email_verified: bool = False


async def sign_up(identity: Identity, email: str, password: str, name: str, client: Client) -> UserRow:
    """Make an account with a password; a mail asks to confirm the address.

    Raises:
        InvalidSpec: the address or the password cannot be.
        Conflict: the address has an account.
        Forbidden: accounts are made by invitation, or not at all.
        RateLimited: too many from this client.
    """
    address = emails.normalise(email)
    require_acceptable(password, address)
    now = identity.clock.now()
    await asyncio.to_thread(
        charge, identity.database, identity.hasher, now, (SIGN_UP_PER_CLIENT, client_of(client.address))
    )
    await identity.read(lambda session: require_allowed(identity, session, address))
    password_hash = await identity.passwords.hash(password)

    def store(session: Session) -> UserRow:
        user = create(identity, session, NewAccount(address, name.strip(), password_hash), client)
        send_verification(identity, session, user)
        return user

    return await identity.write(store)


def require_allowed(identity: Identity, session: Session, email: str) -> None:
    """Refuse an account that may not be made.

    Raises:
        Conflict: the address has an account.
        Forbidden: accounts are made by invitation, or not at all.
    """
    if accounts.by_email(session, email) is not None:
        raise Conflict(f"{email} has an account: log in, or ask for a new password", field="email")
    if not accounts.any_exists(session):
        return
    allowed = identity.policy.sign_up
    if allowed is SignUp.CLOSED:
        raise Forbidden("this installation's accounts are made by its operator; ask there", sign_up=allowed.value)
    if allowed is SignUp.INVITED and not accounts.is_invited(session, email, identity.clock.now()):
        raise Forbidden("an account needs an invitation to this address; ask the operator", sign_up=allowed.value)


def create(identity: Identity, session: Session, new: NewAccount, client: Client) -> UserRow:
    """Store an account, its personal organisation and its place there.

    Raises:
        Conflict, Forbidden: as `require_allowed`; looked at again here, behind the lock.
    """
    if not new.password_hash and not new.email_verified:
        raise InvalidSpec("an account needs a password or an address that somebody verified")
    accounts.lock_sign_up(session)
    require_allowed(identity, session, new.email)
    now = identity.clock.now()
    first = not accounts.any_exists(session)
    user = UserRow(
        id=identity.new_id("usr"), email=new.email, name=new.name, password_hash=new.password_hash, is_operator=first,
        email_verified_at=now if new.email_verified else None, created_at=now,
    )  # fmt: skip
    accounts.insert(session, user)
    org = _personal_org(identity, user)
    orgs.insert(session, org)
    memberships.insert(session, org_id=org.id, user_id=user.id, role=Role.OWNER, now=now)
    taken_over = _take_over_ownerless(identity, session, user, but=org.id) if first else []
    details = {"operator": first, "organisation": org.id, "tier": org.tier, "address": client.address}
    audit.record(
        session, at=now, actor=user.id, action="account.created", subject=user.id, org_id=org.id,
        details=details | ({"took_over": taken_over} if taken_over else {}),
    )  # fmt: skip
    return user


def send_verification(identity: Identity, session: Session, user: UserRow) -> None:
    """Write the mail that asks to confirm an address."""
    token = verifications.issue_token(
        session, identity.hasher, verification_id=identity.new_id("ver"), user_id=user.id, kind=Kind.EMAIL,
        target=user.email, now=identity.clock.now(),
    )  # fmt: skip
    letter = letters.verify_email(identity.public_url, token)
    outbox.post(session, identity.sealer, identity.clock, identity.new_id("mail"), user.email, letter)


def _personal_org(identity: Identity, user: UserRow) -> OrgRow:
    now, name = identity.clock.now(), user.name or user.email.partition("@")[0]
    if user.is_operator:
        org = orgs.operators_own(identity.new_id("org"), name, now)
        org.personal_for = user.id
        return org
    return OrgRow(
        id=identity.new_id("org"), name=name, tier=Tier.BASIC.value, credit_limit_microdollars=0,
        personal_for=user.id, created_at=now,
    )  # fmt: skip


def _take_over_ownerless(identity: Identity, session: Session, user: UserRow, *, but: str) -> list[str]:
    """Make the operator owner of organisations that commands made before there was any account; their ids, [n]."""
    found = [org.id for org in accounts.ownerless_orgs(session) if org.id != but]
    for org_id in found:
        memberships.insert(session, org_id=org_id, user_id=user.id, role=Role.OWNER, now=identity.clock.now())
    return found
