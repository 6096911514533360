"""API keys on the wire. A secret appears in one answer only: that of its creation."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from engine.store.tables import ApiKeyRow


class KeyCreate(BaseModel):
    """Body of `POST /keys`."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)
    name: str = Field(min_length=1, max_length=100)
    prefix: str = Field("sk", description="sk or ck")
    expires_at: datetime | None = None


class KeyView(BaseModel):
    """A key as lists show it."""

    id: str
    org_id: str
    name: str
    prefix: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class NewKeyView(KeyView):
    """Answer of `POST /keys`: the only place where the key itself is."""

    key: str


class KeyList(BaseModel):
    """All keys of the caller's organisation, newest first."""

    data: list[KeyView]


def key_view(row: ApiKeyRow) -> KeyView:
    """A row as lists show it."""
    return KeyView.model_validate(row, from_attributes=True)
