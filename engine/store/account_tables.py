"""The tables of people: accounts, sessions, and what proves that an address or a number is theirs."""

from __future__ import annotations

from datetime import datetime

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
