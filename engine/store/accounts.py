"""Queries about accounts and their identities at OpenID providers. Not about what they may do: see memberships."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, exists, text
from sqlmodel import Session, col, func, select

from engine.store import keys
from engine.store.account_tables import IdentityRow, UserRow
from engine.store.org_tables import InvitationRow, MembershipRow
from engine.store.tables import ApiKeyRow, OrgRow

_SIGN_UP_LOCK = 0x57AC_5160  # any number that no other advisory lock of this system uses


def lock_sign_up(session: Session) -> None:
    """Let sign-ups wait for each other until the commit: two first accounts must not both be the first.

    On SQLite every writing transaction waits anyway.
    """
    if session.get_bind().dialect.name == "postgresql":
        session.connection().execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SIGN_UP_LOCK})


def insert(session: Session, row: UserRow) -> UserRow:
    session.add(row)
    session.flush()
    return row


def get(session: Session, user_id: str) -> UserRow | None:
    return session.get(UserRow, user_id)


def locked(session: Session, user_id: str) -> UserRow | None:
    """The account as it is now, held until the transaction ends: a log-in and a new password, or an account's closing
    and what it makes at that moment, come one after the other. Rows that refer to it can still be written.
    """
    query = select(UserRow).where(UserRow.id == user_id).with_for_update(key_share=True)
    return session.exec(query.execution_options(populate_existing=True)).one_or_none()


def by_email(session: Session, email: str) -> UserRow | None:
    """The account of an address, which has to be normalised as `identity.emails` does."""
    return session.exec(select(UserRow).where(UserRow.email == email)).first()


def by_phone(session: Session, phone_hash: str) -> UserRow | None:
    """The account that verified a number."""
    return session.exec(select(UserRow).where(UserRow.phone_hash == phone_hash)).first()


def any_exists(session: Session) -> bool:
    return session.exec(select(UserRow.id).limit(1)).first() is not None


def insert_identity(session: Session, row: IdentityRow) -> IdentityRow:
    session.add(row)
    session.flush()
    return row


def identity(session: Session, issuer: str, subject: str) -> IdentityRow | None:
    return session.get(IdentityRow, (issuer, subject))


def is_invited(session: Session, email: str, now: datetime) -> bool:
    """Whether some organisation waits for this address to join."""
    query = select(InvitationRow.id).where(InvitationRow.email == email, col(InvitationRow.expires_at) > now)
    query = query.where(col(InvitationRow.accepted_at).is_(None), col(InvitationRow.revoked_at).is_(None))
    return session.exec(query.limit(1)).first() is not None


def ownerless_orgs(session: Session) -> Sequence[OrgRow]:
    """Organisations nobody belongs to: made by an operator's commands."""
    query = select(OrgRow).where(~exists().where(col(MembershipRow.org_id) == col(OrgRow.id)))
    return session.exec(query.order_by(col(OrgRow.created_at), col(OrgRow.id))).all()


def end_keys(session: Session, user_id: str, now: datetime) -> int:
    """Revoke the keys an account made, in whatever organisation; returns how many."""
    query = select(ApiKeyRow.id).where(ApiKeyRow.created_by == user_id, col(ApiKeyRow.revoked_at).is_(None))
    found = session.exec(query).all()
    for key_id in found:
        keys.revoke(session, key_id, now)
    return len(found)


def forget_identities(session: Session, user_id: str) -> None:
    """Unlink an account from every provider."""
    session.connection().execute(delete(IdentityRow).where(col(IdentityRow.user_id) == user_id))


def count_operators(session: Session) -> int:
    """Open accounts that run this installation."""
    query = select(func.count()).select_from(UserRow).where(col(UserRow.is_operator))
    return session.exec(query.where(col(UserRow.disabled_at).is_(None))).one()
