"""Confirmed addresses and new passwords: by a mailed token, or by the old password. Opens no sessions."""

from __future__ import annotations

import asyncio

from sqlmodel import Session

from engine.identity import emails, letters, outbox, verifications
from engine.identity.attempts import (
    LOG_IN_PER_EMAIL,
    MAIL_PER_CLIENT,
    MAIL_PER_EMAIL,
    PASSWORD_PER_ACCOUNT,
    TOKEN_PER_CLIENT,
    Limit,
    charge,
    client_of,
    forget,
)
from engine.identity.context import Identity
from engine.identity.passwords import require_acceptable
from engine.identity.sessions import Client
from engine.identity.sign_up import send_verification
from engine.identity.verifications import Kind
from engine.model.errors import Conflict, InvalidSpec
from engine.store import accounts, sessions
from engine.store import verifications as stored_verifications
from engine.store.account_tables import UserRow


async def verify_email(identity: Identity, token: str, client: Client) -> UserRow:
    """Confirm the address a token was mailed to.

    Raises:
        InvalidSpec: the token is unknown, used or expired.
        RateLimited: too many tokens from this client.
    """
    await _charge(identity, (TOKEN_PER_CLIENT, client_of(client.address)))

    def store(session: Session) -> UserRow:
        row = verifications.redeem(session, identity.hasher, Kind.EMAIL, token, identity.clock.now())
        user = _open_account(session, row.user_id, row.target)
        user.email_verified_at = user.email_verified_at or identity.clock.now()
        session.add(user)
        identity.record(session, user, "account.email_verified", client)
        return user

    return await identity.write(store)


async def allow_mail(identity: Identity, email: str, client: Client) -> str:
    """Let pass who may have a mail sent to an address; returns the address as it is stored.

    The mail itself is written after the answer, so that neither the answer nor its time tells who has an account.

    Raises:
        InvalidSpec: it is no address.
        RateLimited: too often, for this address or from this client.
    """
    address = emails.normalise(email)
    await _charge(identity, (MAIL_PER_EMAIL, address), (MAIL_PER_CLIENT, client_of(client.address)))
    return address


async def resend_verification(identity: Identity, address: str) -> None:
    """Mail a new token to an address that has an unconfirmed account; to others nothing."""

    def store(session: Session) -> None:
        user = accounts.by_email(session, address)
        if user is not None and user.email_verified_at is None and user.disabled_at is None:
            send_verification(identity, session, user)

    await identity.write(store)


async def forgot_password(identity: Identity, address: str, client: Client) -> None:
    """Mail a token for a new password to an address that has an account; to others nothing."""

    def store(session: Session) -> None:
        user = accounts.by_email(session, address)
        if user is None or user.disabled_at is not None:
            return
        token = verifications.issue_token(
            session, identity.hasher, verification_id=identity.new_id("ver"), user_id=user.id, kind=Kind.PASSWORD,
            target=user.email, now=identity.clock.now(),
        )  # fmt: skip
        _post(identity, session, user, letters.reset_password(identity.public_url, token))
        identity.record(session, user, "account.password_reset_asked", client)

    await identity.write(store)


async def reset_password(identity: Identity, token: str, password: str, client: Client) -> UserRow:
    """Set a new password with a mailed token: every session of the account ends, and its address is confirmed.

    An account whose address had never been confirmed may have been made by somebody else: its keys end too.

    Raises:
        InvalidSpec: the token is unknown, used or expired; or the password cannot be, and the token stays good.
        RateLimited: too many tokens from this client.
    """
    await _charge(identity, (TOKEN_PER_CLIENT, client_of(client.address)))
    row = await identity.read(
        lambda session: verifications.peek(session, identity.hasher, Kind.PASSWORD, token, identity.clock.now())
    )
    require_acceptable(password, row.target)
    password_hash = await identity.passwords.hash(password)

    def store(session: Session) -> UserRow:
        now = identity.clock.now()
        verifications.redeem(session, identity.hasher, Kind.PASSWORD, token, now)
        user = _open_account(session, row.user_id, row.target)
        keys_ended = 0
        if user.email_verified_at is None:
            user.email_verified_at = now
            keys_ended = accounts.end_keys(session, user.id, now)
        ended = _set_password(identity, session, user, password_hash, keep=None)
        identity.record(session, user, "account.password_reset", client, sessions_ended=ended, keys_ended=keys_ended)
        return user

    return await identity.write(store)


async def change_password(
    identity: Identity, user: UserRow, old: str, new: str, client: Client, *, session_id: str | None
) -> None:
    """Set a new password by means of the old one: every other session of the account ends.

    Raises:
        InvalidSpec: the old password is wrong, or the new one cannot be.
        Conflict: the account has no password: a mailed token sets the first one.
        RateLimited: too often wrong.
    """
    if user.password_hash is None:
        raise Conflict("this account has no password yet: POST /auth/forgot-password mails a link that sets one")
    require_acceptable(new, user.email)
    await require_password(identity, user, old)
    password_hash = await identity.passwords.hash(new)

    def store(session: Session) -> None:
        current = _open_account(session, user.id, user.email)
        if current.password_hash != user.password_hash:
            raise Conflict("the password was changed by another session at the same moment")
        ended = _set_password(identity, session, current, password_hash, keep=session_id)
        identity.record(session, current, "account.password_changed", client, sessions_ended=ended)

    await identity.write(store)


async def require_password(identity: Identity, user: UserRow, password: str, field: str = "old_password") -> None:
    """Let pass who knows an account's password.

    Raises:
        InvalidSpec: it is wrong.
        RateLimited: too often wrong.
    """
    use = (PASSWORD_PER_ACCOUNT, user.id)
    await _charge(identity, use)
    right, _ = await identity.passwords.verify(password, user.password_hash)
    if not right:
        raise InvalidSpec("the password is wrong", field=field)
    await identity.write(lambda session: forget(session, identity.hasher, use))


def _set_password(identity: Identity, session: Session, user: UserRow, password_hash: str, *, keep: str | None) -> int:
    """Store a password; returns how many sessions that ended."""
    now = identity.clock.now()
    user.password_hash = password_hash
    session.add(user)
    stored_verifications.void(session, user.id, Kind.PASSWORD.value, now)
    forget(session, identity.hasher, (LOG_IN_PER_EMAIL, user.email))
    _post(identity, session, user, letters.password_changed(identity.public_url))
    return sessions.revoke_all(session, user.id, now, but=keep)


def _open_account(session: Session, user_id: str, email: str) -> UserRow:
    """The account a token was made for, if it still has that address and is open; held until the transaction ends."""
    user = accounts.locked(session, user_id)
    if user is None or user.disabled_at is not None or user.email != email:
        raise InvalidSpec("this link is unknown, used or expired: ask for a new one", field="token")
    return user


def _post(identity: Identity, session: Session, user: UserRow, letter: letters.Letter) -> None:
    outbox.post(session, identity.sealer, identity.clock, identity.new_id("mail"), user.email, letter)


async def _charge(identity: Identity, *uses: tuple[Limit, str]) -> None:
    await asyncio.to_thread(charge, identity.database, identity.hasher, identity.clock.now(), *uses)
