"""The tables of people: accounts, sessions, and what proves that an address or a number is theirs."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Column, Text
from sqlmodel import Field, SQLModel

from engine.store.tables import time_column


class UserRow(SQLModel, table=True):
    """An account. `email` is stored as `identity` normalises it, so one address is one account."""

    __tablename__ = "users"
    id: str = Field(primary_key=True)
    email: str = Field(unique=True)
    name: str = ""
    password_hash: str | None = None  # argon2; None: signs in elsewhere (OIDC)
    email_verified_at: datetime | None = time_column()
    phone_hash: str | None = Field(default=None, unique=True)  # keyed: the number itself is not kept
    phone_verified_at: datetime | None = time_column()
    is_operator: bool = False
    created_at: datetime = time_column(nullable=False)
    disabled_at: datetime | None = time_column()


class SessionRow(SQLModel, table=True):
    """A browser's session, known only by the keyed hash of its cookie.

    `expires_at` slides with use and never passes `ends_at`.
    """

    __tablename__ = "sessions"
    id: str = Field(primary_key=True)
    user_id: str = Field(foreign_key="users.id", index=True)
    token_hash: str = Field(unique=True)
    method: str  # how it was opened: `password` or `oidc`
    address: str = ""  # the client's, when it was opened
    user_agent: str = ""
    idle_seconds: int  # unused for this long, it is over
    created_at: datetime = time_column(nullable=False)
    last_used_at: datetime = time_column(nullable=False)
    expires_at: datetime = time_column(nullable=False, index=True)
    ends_at: datetime = time_column(nullable=False)
    revoked_at: datetime | None = time_column()


class IdentityRow(SQLModel, table=True):
    """An account at an OpenID provider: whoever proves to be `subject` there is this user here."""

    __tablename__ = "identities"
    issuer: str = Field(primary_key=True)
    subject: str = Field(primary_key=True)
    user_id: str = Field(foreign_key="users.id", index=True)
    email: str  # as the provider gave it when the two were linked
    created_at: datetime = time_column(nullable=False)


class VerificationRow(SQLModel, table=True):
    """A one-time secret that was sent somewhere: whoever knows it owns that address or number."""

    __tablename__ = "verifications"
    id: str = Field(primary_key=True)
    user_id: str = Field(foreign_key="users.id", index=True)
    kind: str  # an `identity.verifications.Kind`
    target: str  # the e-mail address, or the keyed hash of the phone number
    secret_hash: str = Field(unique=True)
    attempts: int = 0
    created_at: datetime = time_column(nullable=False)
    expires_at: datetime = time_column(nullable=False, index=True)
    used_at: datetime | None = time_column()


class AttemptRow(SQLModel, table=True):
    """How often something was tried in the window that ends at `resets_at`. `name` is a keyed hash."""

    __tablename__ = "attempts"
    name: str = Field(primary_key=True)
    count: int = 0
    resets_at: datetime = time_column(nullable=False, index=True)


class MailRow(SQLModel, table=True):
    """A mail to be sent: written with the deed it is about, deleted once a server took it."""

    __tablename__ = "mails"
    id: str = Field(primary_key=True)
    to_address: str
    subject: str
    body_sealed: str = Field(sa_column=Column(Text, nullable=False))  # it may carry a one-time secret
    created_at: datetime = time_column(nullable=False)
    next_attempt_at: datetime | None = time_column(index=True)  # None: given up
    attempts: int = 0
    last_error: str = ""
