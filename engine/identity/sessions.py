"""Browser sessions: opened, recognised by their cookie, renewed, ended. Not what their owner may do in which tenant."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlmodel import Session

from engine.identity.keys import KeyHasher
from engine.model import ids
from engine.store import sessions
from engine.store.account_tables import SessionRow, UserRow
from engine.store.database import Database

COOKIE = "stackyard_session"
RENEW_AFTER = timedelta(minutes=5)
"""A session's use is written down this often at most: a page that asks every second must not write every second."""

_TOKEN_CHARACTERS = 52  # 260 bits
_USER_AGENT_CHARACTERS = 200


@dataclass(frozen=True)
class SessionPolicy:
    """How long sessions live: unused, and at all."""

    idle: timedelta = timedelta(days=7)
    longest: timedelta = timedelta(days=30)


@dataclass(frozen=True)
class SessionUser:
    """Who a session's cookie stands for.

    Attributes:
        csrf_token: what an unsafe request with this cookie has to carry in `X-CSRF-Token` (`identity/csrf.py`).
        renewal_due: the use of the session should be written down now: call `renew`.
    """

    user: UserRow
    session_id: str
    csrf_token: str
    renewal_due: bool


@dataclass(frozen=True)
class Client:
    """Where a request came from, as the owner is shown it."""

    address: str = ""
    user_agent: str = ""


def open_session(
    session: Session,
    hasher: KeyHasher,
    policy: SessionPolicy,
    *,
    session_id: str,
    user_id: str,
    method: str,
    client: Client,
    now: datetime,
) -> tuple[SessionRow, str]:
    """Store a new session; returns its row and, this once, its cookie."""
    cookie = f"st_{ids.random_text(_TOKEN_CHARACTERS)}"
    row = SessionRow(
        id=session_id, user_id=user_id, token_hash=_token_hash(hasher, cookie), method=method,
        address=client.address, user_agent=client.user_agent[:_USER_AGENT_CHARACTERS],
        idle_seconds=int(policy.idle.total_seconds()), created_at=now, last_used_at=now,
        expires_at=now + min(policy.idle, policy.longest), ends_at=now + policy.longest,
    )  # fmt: skip
    return sessions.insert(session, row), cookie


def user_of_session(session: Session, hasher: KeyHasher, cookie: str, now: datetime) -> SessionUser | None:
    """Who presents this cookie; None when it is unknown, expired or revoked, or the account was closed."""
    found = sessions.live_with_user(session, _token_hash(hasher, cookie), now)
    if found is None:
        return None
    row, user = found
    due = now - row.last_used_at >= min(RENEW_AFTER, timedelta(seconds=row.idle_seconds / 4))
    return SessionUser(user, row.id, csrf_token_of(hasher, cookie), due)


def renew(database: Database, session_id: str, now: datetime) -> None:
    """Write down that a session was used, in a transaction of its own."""
    with database.write() as session:
        sessions.renew(session, session_id, now)


def csrf_token_of(hasher: KeyHasher, cookie: str) -> str:
    """The token that goes with a cookie: whoever has the one can be told the other, nobody else can make it."""
    return hasher.hash(f"csrf {cookie}")


def _token_hash(hasher: KeyHasher, cookie: str) -> str:
    return hasher.hash(f"session {cookie}")
