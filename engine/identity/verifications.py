"""One-time secrets that prove an address or a number: made, and redeemed once. Sends nothing, changes no account."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum

from sqlmodel import Session

from engine.identity.keys import KeyHasher
from engine.model import ids
from engine.model.errors import InvalidSpec
from engine.store import verifications
from engine.store.account_tables import VerificationRow

CODE_ATTEMPTS = 5
"""A six-digit code is guessed with a chance of 1 in 200,000 by then."""

_TOKEN_CHARACTERS = 40  # 200 bits
_CODE_DIGITS = 6
_LIFETIMES = {"email": timedelta(days=2), "password": timedelta(hours=1), "phone": timedelta(minutes=10)}


class Kind(StrEnum):
    """What a secret proves, and what it may be used for."""

    EMAIL = "email"
    PASSWORD = "password"
    PHONE = "phone"


def issue_token(
    session: Session, hasher: KeyHasher, *, verification_id: str, user_id: str, kind: Kind, target: str, now: datetime
) -> str:
    """Store a new token of an account, in place of earlier ones of its kind; returns it, this once."""
    token = f"vt_{ids.random_text(_TOKEN_CHARACTERS)}"
    _insert(session, verification_id, user_id, kind, target, _token_hash(hasher, token), now)
    return token


def issue_code(
    session: Session, hasher: KeyHasher, *, verification_id: str, user_id: str, target: str, now: datetime
) -> str:
    """Store a new code for a phone number, in place of an earlier one; returns it, this once."""
    code = ids.random_digits(_CODE_DIGITS)
    _insert(session, verification_id, user_id, Kind.PHONE, target, _code_hash(hasher, verification_id, code), now)
    return code


def peek(session: Session, hasher: KeyHasher, kind: Kind, token: str, now: datetime) -> VerificationRow:
    """What a token stands for, without using it up.

    Raises:
        InvalidSpec: unknown, used, replaced or expired: the four look the same.
    """
    row = verifications.by_secret(session, kind.value, _token_hash(hasher, token), now)
    if row is None:
        raise InvalidSpec("this link is unknown, used or expired: ask for a new one", field="token")
    return row


def redeem(session: Session, hasher: KeyHasher, kind: Kind, token: str, now: datetime) -> VerificationRow:
    """What a token stands for; it is used up by this.

    Raises:
        InvalidSpec: unknown, used, replaced or expired.
    """
    row = peek(session, hasher, kind, token, now)
    if not verifications.use(session, row.id, now):
        raise InvalidSpec("this link is unknown, used or expired: ask for a new one", field="token")
    return row


def try_code(session: Session, hasher: KeyHasher, user_id: str, code: str, now: datetime) -> VerificationRow | None:
    """The row whose code this is, used up; None for a wrong one, which counts: commit either way.

    Raises:
        InvalidSpec: no code is waiting, or it was tried too often: a new one is needed.
    """
    row = verifications.newest(session, user_id, Kind.PHONE.value, now)
    if row is None or verifications.count_attempt(session, row.id) > CODE_ATTEMPTS:
        raise InvalidSpec("no code is waiting for this account, or it was tried too often: ask for a new one")
    if row.secret_hash != _code_hash(hasher, row.id, code) or not verifications.use(session, row.id, now):
        return None
    return row


def _insert(
    session: Session, verification_id: str, user_id: str, kind: Kind, target: str, secret_hash: str, now: datetime
) -> None:
    verifications.void(session, user_id, kind.value, now)
    row = VerificationRow(
        id=verification_id, user_id=user_id, kind=kind.value, target=target, secret_hash=secret_hash, created_at=now,
        expires_at=now + _LIFETIMES[kind.value],
    )  # fmt: skip
    verifications.insert(session, row)


def _token_hash(hasher: KeyHasher, token: str) -> str:
    return hasher.hash(f"verification {token}")


def _code_hash(hasher: KeyHasher, verification_id: str, code: str) -> str:
    return hasher.hash(f"code {verification_id} {code}")
