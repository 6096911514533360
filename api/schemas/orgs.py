"""Organisations, members and invitations on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from engine.model.access import PERMISSIONS_OF_ROLE, Permission, Principal, Role
from engine.model.tiers import Tier
from engine.store.account_tables import UserRow
from engine.store.org_tables import InvitationRow, MembershipRow
from engine.store.tables import OrgRow

OrgName = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""One line: it stands in the subject of mails."""


class OrgBody(BaseModel):
    """Body of `POST /orgs` and `PATCH /orgs/{id}`."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)
    name: OrgName


class RoleBody(BaseModel):
    """Body of `PATCH /orgs/{id}/members/{user_id}`."""

    model_config = ConfigDict(extra="forbid")
    role: Role


class TransferBody(BaseModel):
    """Body of `POST /orgs/{id}/transfer`."""

    model_config = ConfigDict(extra="forbid")
    user_id: str = Field(min_length=1, max_length=100)


class InvitationBody(BaseModel):
    """Body of `POST /orgs/{id}/invitations`."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)
    email: str = Field(min_length=3, max_length=254)
    role: Role = Role.DEVELOPER


class AcceptBody(BaseModel):
    """Body of `POST /invitations/accept`."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)
    token: str = Field(min_length=1, max_length=200)


class OrgView(BaseModel):
    """An organisation as its members see it, with the caller's role and permissions in it."""

    id: str
    name: str
    tier: Tier
    is_personal: bool
    role: Role | None = Field(description="None for a key that no account made")
    permissions: list[Permission]
    created_at: datetime


class OrgList(BaseModel):
    """The caller's organisations, the personal one first; a key of an organisation sees that one."""

    data: list[OrgView]


class MemberView(BaseModel):
    """One member."""

    user_id: str
    email: str
    name: str
    role: Role
    joined_at: datetime


class MemberList(BaseModel):
    """All members, longest first."""

    data: list[MemberView]


class InvitationView(BaseModel):
    """An invitation. Its token is in the mail only."""

    id: str
    email: str
    role: Role
    invited_by: str
    created_at: datetime
    expires_at: datetime
    revoked_at: datetime | None


class InvitationList(BaseModel):
    """Invitations that can still be accepted, newest first."""

    data: list[InvitationView]


def org_view(row: OrgRow, role: Role | None, caller: Principal) -> OrgView:
    """An organisation as this caller sees it."""
    here = caller.org_id == row.id
    permissions = caller.permissions if here else PERMISSIONS_OF_ROLE[role] if role else frozenset()
    return OrgView(
        id=row.id, name=row.name, tier=Tier(row.tier), is_personal=row.personal_for is not None, role=role,
        permissions=sorted(permissions), created_at=row.created_at,
    )  # fmt: skip


def member_view(row: MembershipRow, user: UserRow) -> MemberView:
    return MemberView(
        user_id=user.id, email=user.email, name=user.name, role=Role(row.role), joined_at=row.created_at
    )  # fmt: skip


def invitation_view(row: InvitationRow) -> InvitationView:
    return InvitationView.model_validate(row, from_attributes=True)
