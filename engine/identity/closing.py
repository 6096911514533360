"""Closes an account for ever: nothing opens it any more, and what names its owner is forgotten. Deletes no books."""

from __future__ import annotations

from sqlmodel import Session

from engine.identity.context import Identity
from engine.identity.recovery import require_password
from engine.identity.sessions import Client
from engine.model.access import Role
from engine.model.errors import Conflict, InvalidSpec, NotFound
from engine.store import accounts, keys, memberships, orgs, owners, sessions
from engine.store.account_tables import UserRow


async def close_account(identity: Identity, user: UserRow, password: str | None, client: Client) -> None:
    """Close an account on its owner's word.

    Its keys and sessions end, it leaves its organisations, its address and number are forgotten and free again. The
    personal organisation stays without a member: its books are kept.

    Raises:
        InvalidSpec: the password is wrong, or missing.
        Conflict: it still runs something, or others depend on it; the message says what to do first.
        RateLimited: too often wrong.
    """
    if user.password_hash is not None:
        if password is None:
            raise InvalidSpec("closing the account needs its password", field="password")
        await require_password(identity, user, password, field="password")

    def store(session: Session) -> None:
        accounts.lock_sign_up(session)  # of the last two operators closing now, one stays
        current = accounts.locked(session, user.id)
        if current is None or current.disabled_at is not None:
            raise NotFound(f"no account {user.id}")
        _require_free(session, current)
        _close(identity, session, current)
        identity.record(session, current, "account.closed", client)

    await identity.write(store)


def _require_free(session: Session, user: UserRow) -> None:
    """Refuse while something would be left without anybody."""
    if user.is_operator and accounts.count_operators(session) == 1:
        raise Conflict("this account is the only operator of the installation: make another one first")
    for place, org in memberships.list_for_user(session, user.id):
        orgs.locked(session, org.id)  # of the last two owners leaving now, one stays
        is_alone = len(memberships.list_for_org(session, org.id)) == 1
        is_last = place.role == Role.OWNER.value and memberships.count_owners(session, org.id) == 1
        if is_last and not (is_alone and org.personal_for == user.id):
            raise Conflict(f"this account is the only owner of {org.id} ({org.name}): make another member owner first")
        if is_alone and (running := len(owners.living_of_org(session, org.id))):
            raise Conflict(f"{running} deployments or pods of {org.id} still run, or are kept: delete them first")


def _close(identity: Identity, session: Session, user: UserRow) -> None:
    now = identity.clock.now()
    accounts.end_keys(session, user.id, now)
    for place, org in memberships.list_for_user(session, user.id):
        if len(memberships.list_for_org(session, org.id)) == 1:
            orgs.rename(session, org, "closed account", now)
            for key in keys.list_for_org(session, org.id):
                keys.revoke(session, key.id, now)
        memberships.remove(session, place, now)
    sessions.revoke_all(session, user.id, now)
    accounts.forget_identities(session, user.id)
    user.email, user.name = f"{user.id}@closed.invalid", ""
    user.password_hash = user.phone_hash = user.phone_verified_at = None
    user.is_operator, user.disabled_at = False, now
    session.add(user)
