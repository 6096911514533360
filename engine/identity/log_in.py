"""Opens a session for whoever knows an account's password, and ends sessions. Makes no accounts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from sqlmodel import Session

from engine.identity import emails
from engine.identity.attempts import LOG_IN_PER_CLIENT, LOG_IN_PER_EMAIL, charge, client_of, forget
from engine.identity.context import Identity
from engine.identity.sessions import Client, csrf_token_of, open_session, user_of_session
from engine.model.access import Principal
from engine.model.errors import Forbidden, NotFound, Unauthenticated
from engine.store import accounts, audit, sessions
from engine.store.account_tables import SessionRow, UserRow


@dataclass(frozen=True)
class LoggedIn:
    """A session at the one moment its cookie is known."""

    user: UserRow
    session: SessionRow
    cookie: str
    csrf_token: str


async def log_in(
    identity: Identity, email: str, password: str, client: Client, *, previous_cookie: str | None = None
) -> LoggedIn:
    """Open a session for the account of an address.

    An unknown address, one without a password and a wrong password look the same and take the same time.

    Args:
        previous_cookie: of the browser's session until now; it ends.

    Raises:
        Unauthenticated: the address or the password is wrong.
        Forbidden: both are right, but the account is closed or its address not confirmed.
        RateLimited: too often wrong, for this address or from this client.
    """
    address = emails.normalise(email)
    uses = ((LOG_IN_PER_EMAIL, address), (LOG_IN_PER_CLIENT, client_of(client.address)))
    await asyncio.to_thread(charge, identity.database, identity.hasher, identity.clock.now(), *uses)
    found = await identity.read(lambda session: accounts.by_email(session, address))
    stored = found.password_hash if found else None
    right, new_hash = await identity.passwords.verify(password, stored)
    if found is None or not right:
        await _record_failure(identity, found, address, client)
        raise Unauthenticated("the e-mail address or the password is wrong")

    def store(session: Session) -> LoggedIn:
        user = accounts.locked(session, found.id)
        if user is None or user.password_hash != stored:  # it was changed while we compared
            raise Unauthenticated("the e-mail address or the password is wrong")
        require_usable(identity, user)
        if new_hash:
            user.password_hash = new_hash
            session.add(user)
        forget(session, identity.hasher, *uses)
        return open_for(identity, session, user, "password", client, previous_cookie)

    return await identity.write(store)


async def _record_failure(identity: Identity, user: UserRow | None, address: str, client: Client) -> None:
    """Write it down also where there is no account: the time it takes must not tell."""
    subject = user.id if user else f"address:{identity.hasher.hash(f'unknown {address}')[:16]}"
    await identity.write(
        lambda session: audit.record(
            session,
            at=identity.clock.now(),
            actor="anonymous",
            action="account.log_in_failed",
            subject=subject,
            details={"address": client.address},
        )
    )


def require_usable(identity: Identity, user: UserRow) -> None:
    """Refuse an account that nobody may log in to now.

    Raises:
        Forbidden: it is closed, or its address is not confirmed and has to be.
    """
    if user.disabled_at is not None:
        raise Forbidden("this account is closed; ask the operator of this installation", reason="account_closed")
    if identity.policy.verified_email_needed and user.email_verified_at is None:
        raise Forbidden(
            "confirm your e-mail address first: follow the link in the mail, or POST /auth/resend-verification",
            reason="email_unverified",
        )


def open_for(
    identity: Identity, session: Session, user: UserRow, method: str, client: Client, previous_cookie: str | None
) -> LoggedIn:
    """Open a session for somebody who proved to be this user, in place of the browser's earlier one."""
    now = identity.clock.now()
    if previous_cookie and (before := user_of_session(session, identity.hasher, previous_cookie, now)):
        sessions.revoke(session, before.user.id, before.session_id, now)
    row, cookie = open_session(
        session, identity.hasher, identity.policy.sessions, session_id=identity.new_id("ses"), user_id=user.id,
        method=method, client=client, now=now,
    )  # fmt: skip
    identity.record(session, user, "session.opened", client, session_id=row.id, method=method)
    return LoggedIn(user, row, cookie, csrf_token_of(identity.hasher, cookie))


async def open_after_sign_up(
    identity: Identity, user: UserRow, client: Client, previous_cookie: str | None
) -> LoggedIn:
    """Open a session for the account that was just made here."""
    return await identity.write(lambda session: open_for(identity, session, user, "password", client, previous_cookie))


async def signed_in(identity: Identity, caller: Principal) -> UserRow:
    """The account whose browser session made a request.

    Raises:
        Unauthenticated: it was closed meanwhile, or the caller has no account.
    """
    user = await identity.read(lambda session: accounts.get(session, caller.user_id or ""))
    if user is None or user.disabled_at is not None:
        raise Unauthenticated("log in first")
    return user


async def log_out(identity: Identity, user: UserRow, session_id: str, client: Client) -> None:
    """End one session of an account.

    Raises:
        NotFound: the account has no such open session.
    """

    def store(session: Session) -> None:
        if sessions.revoke(session, user.id, session_id, identity.clock.now()) is None:
            raise NotFound(f"no open session {session_id}")
        identity.record(session, user, "session.revoked", client, session_id=session_id)

    await identity.write(store)


async def log_out_everywhere(identity: Identity, user: UserRow, client: Client) -> int:
    """End all sessions of an account; returns how many."""

    def store(session: Session) -> int:
        ended = sessions.revoke_all(session, user.id, identity.clock.now())
        identity.record(session, user, "session.all_revoked", client, sessions=ended)
        return ended

    return await identity.write(store)
