"""Invitations to an organisation: written, mailed, taken back, accepted. The token is in the mail and nowhere else.

Whoever can invite could otherwise accept in another's name: so the token is in no answer, and only the account of the
address that it was mailed to may use it. Installations without a mail server have it on the API's terminal.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlmodel import Session

from engine.identity import emails, letters
from engine.identity import orgs as belonging
from engine.identity.attempts import Limit
from engine.identity.keys import KeyHasher
from engine.identity.letters import Letter
from engine.model import ids
from engine.model.access import Principal, Role
from engine.model.errors import Conflict, Forbidden, NotFound
from engine.store import accounts, audit, invitations, memberships, orgs
from engine.store.account_tables import UserRow
from engine.store.org_tables import InvitationRow, MembershipRow

VALID_FOR = timedelta(days=7)
MOST_OPEN = 200
"""Open invitations of one organisation: a bound on how much mail it can make us send."""

PER_ORG = Limit("invitations, organisation", 100, timedelta(days=1))

_TOKEN_CHARACTERS = 52  # 260 bits


@dataclass(frozen=True)
class Invited:
    """A new invitation and the mail that carries its token."""

    row: InvitationRow
    letter: Letter


def invite(
    session: Session, hasher: KeyHasher, caller: Principal, email: str, role: Role, *, invitation_id: str,
    public_url: str, now: datetime,
) -> Invited:  # fmt: skip
    """Write an invitation; an earlier one of the same address is replaced.

    Raises:
        InvalidSpec: not an address.
        Conflict: the address belongs already, the organisation is personal, or `MOST_OPEN` are open.
        Forbidden: only owners invite owners.
    """
    address = emails.normalise(email)
    org = orgs.locked(session, caller.org_id)
    if org is None:
        raise NotFound(f"no organisation {caller.org_id}")
    belonging.require_shareable(org)
    if role is Role.OWNER:
        belonging.require_owner(session, caller)
    user = accounts.by_email(session, address)
    if user is not None and memberships.get(session, org.id, user.id) is not None:
        raise Conflict(f"{address} is a member already", user_id=user.id)
    waiting = invitations.list_open(session, org.id, now)
    for earlier in (row for row in waiting if row.email == address):
        earlier.revoked_at = now
    if len(waiting) >= MOST_OPEN:
        raise Conflict(f"{MOST_OPEN} invitations are open, which is the most: revoke some")
    token = f"inv_{ids.random_text(_TOKEN_CHARACTERS)}"
    row = InvitationRow(
        id=invitation_id, org_id=org.id, email=address, role=role.value, token_hash=_token_hash(hasher, token),
        invited_by=caller.actor, created_at=now, expires_at=now + VALID_FOR,
    )  # fmt: skip
    invitations.insert(session, row)
    details = {"email": address, "role": role.value}
    audit.record(
        session, at=now, actor=caller.actor, action="member.invited", subject=row.id, org_id=org.id, details=details
    )
    return Invited(row, letters.join_organisation(public_url, token, org.name))


def revoke(session: Session, caller: Principal, invitation_id: str, now: datetime) -> InvitationRow:
    """Take an invitation back; again: no change.

    Raises:
        NotFound: no such invitation in the caller's organisation.
        Conflict: it was accepted: remove the member instead.
    """
    row = invitations.get(session, invitation_id, org_id=caller.org_id)
    if row is None:
        raise NotFound(f"no invitation {invitation_id}")
    if row.accepted_at is not None:
        raise Conflict("the invitation was accepted: remove the member instead", user_id=row.accepted_by)
    if row.revoked_at is None:
        row.revoked_at = now
        session.add(row)
        session.flush()
        audit.record(
            session, at=now, actor=caller.actor, action="invitation.revoked", subject=row.id, org_id=row.org_id,
            details={"email": row.email},
        )  # fmt: skip
    return row


def accept(session: Session, hasher: KeyHasher, user_id: str, token: str, now: datetime) -> MembershipRow:
    """Join an organisation; who belongs to it already just stays. Having the token proves the account's address.

    Raises:
        NotFound: no such invitation.
        Forbidden: it was sent to another address than the account's.
        Conflict: it expired, was taken back, or was used before; `reason` says which.
    """
    row = invitations.by_token_hash(session, _token_hash(hasher, token), for_update=True)
    user = accounts.get(session, user_id)
    if row is None or user is None:
        raise NotFound("no such invitation: use the link of the newest mail")
    if user.email != row.email:
        raise Forbidden("this invitation was sent to another address: sign in with the account of that address")
    orgs.locked(session, row.org_id)
    member = memberships.get(session, row.org_id, user.id)
    if member is not None:
        if row.accepted_at is None:
            _accepted(session, row, user, now)
        return member
    _require_open(row, now)
    member = memberships.insert(session, org_id=row.org_id, user_id=user.id, role=Role(row.role), now=now)
    _accepted(session, row, user, now)
    details = {"role": row.role, "invitation": row.id}
    audit.record(
        session, at=now, actor=user.id, action="member.joined", subject=user.id, org_id=row.org_id, details=details
    )
    return member


def _require_open(row: InvitationRow, now: datetime) -> None:
    if row.revoked_at is not None:
        raise Conflict("the invitation was taken back: ask for a new one", reason="revoked")
    if row.accepted_at is not None:
        raise Conflict("the invitation was used before: ask for a new one", reason="used")
    if row.expires_at <= now:
        raise Conflict(f"the invitation expired at {row.expires_at:%F %H:%M} UTC: ask for a new one", reason="expired")


def _accepted(session: Session, row: InvitationRow, user: UserRow, now: datetime) -> None:
    row.accepted_at, row.accepted_by = now, user.id
    user.email_verified_at = user.email_verified_at or now
    session.add_all((row, user))
    session.flush()


def _token_hash(hasher: KeyHasher, token: str) -> str:
    return hasher.hash(f"invitation {token}")
