"""Whose account a provider's identity opens: a linked one, one with the same proven address, or a new one."""

from __future__ import annotations

from sqlmodel import Session

from engine.identity import emails, letters, outbox, sign_up
from engine.identity.context import Identity
from engine.identity.log_in import LoggedIn, open_for, require_usable
from engine.identity.oidc import ProvenIdentity
from engine.identity.sessions import Client
from engine.identity.sign_up import NewAccount
from engine.model.errors import Conflict, Forbidden, Unauthenticated
from engine.store import accounts
from engine.store.account_tables import IdentityRow, UserRow


async def log_in(
    identity: Identity, proven: ProvenIdentity, client: Client, *, previous_cookie: str | None = None
) -> LoggedIn:
    """Open a session for whom a provider vouches for.

    Raises:
        Forbidden: no account may be opened or made for this identity; the message says why.
        Conflict: the address has an account that never proved it.
    """

    def store(session: Session) -> LoggedIn:
        user = _user_of(identity, session, proven, client)
        require_usable(identity, user)
        return open_for(identity, session, user, "oidc", client, previous_cookie)

    return await identity.write(store)


def _user_of(identity: Identity, session: Session, proven: ProvenIdentity, client: Client) -> UserRow:
    accounts.lock_sign_up(session)  # two first log-ins of one identity at the same time make one account
    known = accounts.identity(session, proven.issuer, proven.subject)
    if known is not None:
        user = accounts.get(session, known.user_id)
        if user is None:
            raise Unauthenticated("this identity's account is gone")
        return user
    if not proven.email or not proven.email_verified:
        raise Forbidden("the provider does not vouch for your e-mail address: verify it there first")
    address = emails.normalise(proven.email)
    user = accounts.by_email(session, address)
    if user is None:
        new = NewAccount(address, _name(proven), email_verified=True)
        user = sign_up.create(identity, session, new, client)
        _link(identity, session, user, proven, client)
        return user
    if user.email_verified_at is None:
        # Whoever made it may not own the address: linked, both would have it.
        raise Conflict(
            f"{address} has an account that never confirmed the address: confirm it, or set a new password, "
            "both by mail; then this log-in opens it",
            reason="email_unverified",
        )
    require_usable(identity, user)
    _link(identity, session, user, proven, client)
    letter = letters.identity_linked(identity.public_url, proven.issuer)
    outbox.post(session, identity.sealer, identity.clock, identity.new_id("mail"), user.email, letter)
    return user


def _link(identity: Identity, session: Session, user: UserRow, proven: ProvenIdentity, client: Client) -> None:
    row = IdentityRow(
        issuer=proven.issuer, subject=proven.subject, user_id=user.id, email=proven.email,
        created_at=identity.clock.now(),
    )  # fmt: skip
    accounts.insert_identity(session, row)
    identity.record(session, user, "account.identity_linked", client, issuer=proven.issuer)


def _name(proven: ProvenIdentity) -> str:
    """The provider's name for somebody, without what cannot be shown or stored."""
    return "".join(c for c in proven.name if c.isprintable()).strip()[:100]
