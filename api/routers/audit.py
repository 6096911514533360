"""`/orgs/{org_id}/audit`: who did what in an organisation. Only reads; `stackyard admin audit` proves the chain."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query
from pydantic import BaseModel

from api.deps import CallerArg, DepsArg
from engine.store import audit

router = APIRouter(prefix="/orgs/{org_id}/audit", tags=["organisations"])


class AuditEntry(BaseModel):
    """One deed. `actor` is an account, a key, `operator:…` or `system:…`; `hash` continues `previous_hash`."""

    seq: int
    at: datetime
    actor: str
    action: str
    subject: str
    details: dict[str, Any]
    previous_hash: str
    hash: str


class AuditPage(BaseModel):
    """Newest first; `before` takes the last one's `seq` for the next page. The chain runs over all organisations."""

    data: list[AuditEntry]
    has_more: bool


@router.get("", summary="Who did what, newest first")
def list_audit(
    org_id: str,
    caller: CallerArg,
    deps: DepsArg,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    before: Annotated[int | None, Query(ge=1, le=2**63 - 1)] = None,
) -> AuditPage:
    with deps.database.read() as session:
        rows = audit.page(session, org_id=caller.org_id, before=before, limit=limit + 1)
    data = [AuditEntry.model_validate(row, from_attributes=True) for row in rows[:limit]]
    return AuditPage(data=data, has_more=len(rows) > limit)
