"""Grants of keys on deployments, on the wire."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from engine.model.access import GrantRole
from engine.store.org_tables import KeyGrantRow


class PermissionCreate(BaseModel):
    """Body of `POST /deployments/{id}/permissions`."""

    model_config = ConfigDict(extra="forbid")
    api_key_id: str = Field(min_length=1, max_length=100)
    role: GrantRole


class PermissionView(BaseModel):
    """What a key may do with a deployment."""

    deployment_id: str
    api_key_id: str
    role: GrantRole
    granted_by: str
    created_at: datetime


class PermissionList(BaseModel):
    """The grants on a deployment, oldest first; those of revoked keys are left out."""

    data: list[PermissionView]


def permission_view(row: KeyGrantRow) -> PermissionView:
    return PermissionView(
        deployment_id=row.deployment_id, api_key_id=row.key_id, role=GrantRole(row.role), granted_by=row.granted_by,
        created_at=row.created_at,
    )  # fmt: skip
