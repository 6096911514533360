"""The tables of who belongs to which organisation, who was asked to, and which key may call which deployment."""

from __future__ import annotations

from datetime import datetime

from sqlmodel import Field, SQLModel

from engine.store.tables import time_column


class MembershipRow(SQLModel, table=True):
    """An account's place in an organisation. An account that left has no row: the audit log remembers it."""

    __tablename__ = "memberships"
    org_id: str = Field(foreign_key="orgs.id", primary_key=True)
    user_id: str = Field(foreign_key="users.id", primary_key=True, index=True)
    role: str  # a `model.access.Role`
    created_at: datetime = time_column(nullable=False)


class InvitationRow(SQLModel, table=True):
    """An invitation by e-mail: open until it is accepted, revoked or past `expires_at`. Its token is not kept."""

    __tablename__ = "invitations"
    id: str = Field(primary_key=True)
    org_id: str = Field(foreign_key="orgs.id", index=True)
    email: str = Field(index=True)  # as `users.email`
    role: str
    token_hash: str = Field(unique=True)
    invited_by: str  # who the audit log names
    created_at: datetime = time_column(nullable=False)
    expires_at: datetime = time_column(nullable=False)
    accepted_at: datetime | None = time_column()
    accepted_by: str | None = None
    revoked_at: datetime | None = time_column()


class KeyGrantRow(SQLModel, table=True):
    """What a scoped key may do with one deployment, of either kind."""

    __tablename__ = "key_grants"
    deployment_id: str = Field(primary_key=True)
    key_id: str = Field(foreign_key="api_keys.id", primary_key=True, index=True)
    role: str  # a `model.access.GrantRole`
    granted_by: str  # who the audit log names
    created_at: datetime = time_column(nullable=False)
