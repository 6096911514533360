"""API keys on the wire. A secret appears in two answers only: those of its creation and of its rotation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from engine.model.access import GrantRole, Permission
from engine.model.ledger import Period
from engine.model.money import to_usd
from engine.store.ledger_tables import BudgetRow
from engine.store.tables import ApiKeyRow


class GrantBody(BaseModel):
    """What a scoped key may do with one deployment."""

    model_config = ConfigDict(extra="forbid")
    deployment_id: str = Field(min_length=1, max_length=100)
    role: GrantRole = GrantRole.INFERENCE


class BudgetBody(BaseModel):
    """The most a key may spend per period; days and months are UTC's."""

    model_config = ConfigDict(extra="forbid")
    amount_usd: Decimal = Field(ge=0, le=10_000_000, max_digits=14, decimal_places=6)
    period: Period
    currency: Literal["USD"] = "USD"


class KeyCreate(BaseModel):
    """Body of `POST /keys`."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)
    name: str = Field(min_length=1, max_length=100)
    prefix: str = Field("sk", max_length=10, description="sk or ck")
    scopes: list[Permission] | None = Field(
        None, min_length=1, max_length=100, description="absent: all that its maker may"
    )
    scoped: bool = Field(False, description="limit it to granted deployments; implied by `grants`")
    grants: list[GrantBody] | None = Field(None, max_length=1000)
    budget: BudgetBody | None = None
    expires_at: datetime | None = None


class KeyRotate(BaseModel):
    """Body of `POST /keys/{id}/rotate`."""

    model_config = ConfigDict(extra="forbid")
    overlap_seconds: int = Field(86_400, description="how long the old key goes on working; 0 to 2592000")


class BudgetView(BaseModel):
    """A key's budget; it holds for all keys rotated from the first one together."""

    id: str
    amount_usd: Decimal
    period: Period


class KeyView(BaseModel):
    """A key as lists show it."""

    id: str
    org_id: str
    name: str
    prefix: str
    created_by: str | None
    scopes: list[str] | None
    scoped: bool
    grants: list[GrantBody]
    budgets: list[BudgetView]
    replaces: str | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


class NewKeyView(KeyView):
    """Answer of `POST /keys` and of a rotation: the only places where the key itself is."""

    key: str


class KeyList(BaseModel):
    """The keys of the caller's organisation, or of it the caller's own; newest first."""

    data: list[KeyView]


def key_view(row: ApiKeyRow, granted: Mapping[str, GrantRole], budgets: Sequence[BudgetRow]) -> KeyView:
    """A row as lists show it."""
    return KeyView(
        id=row.id, org_id=row.org_id, name=row.name, prefix=row.prefix, created_by=row.created_by, scopes=row.scopes,
        scoped=row.is_scoped, replaces=row.replaces, created_at=row.created_at, expires_at=row.expires_at,
        revoked_at=row.revoked_at, last_used_at=row.last_used_at,
        grants=[GrantBody(deployment_id=dep, role=role) for dep, role in sorted(granted.items())],
        budgets=[
            BudgetView(id=b.id, amount_usd=to_usd(b.limit_microdollars), period=Period(b.period)) for b in budgets
        ],
    )  # fmt: skip
