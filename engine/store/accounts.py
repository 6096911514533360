"""Queries about accounts and their identities at OpenID providers. Not about what they may do: see memberships."""

from __future__ import annotations

from sqlalchemy import text
from sqlmodel import Session, select

from engine.store.account_tables import IdentityRow, UserRow

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
