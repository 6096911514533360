"""Whom a browser session stands for, asked by the gateway: it serves jobs and knows keys, not sessions."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel

from api.deps import CallerArg

router = APIRouter()


class JobAdmission(BaseModel):
    """The caller, and what the account may do in the organisation the request is about."""

    org_id: str
    user_id: str | None
    session_id: str | None
    permissions: list[str]


@router.post("/gpu/admission", name="admit_to_jobs", include_in_schema=False)
@router.get("/gpu/admission", name="admit_to_reading_jobs", include_in_schema=False)
def admission(caller: CallerArg) -> JobAdmission:
    """For the methods apart: one that changes something needs the session's second token too."""
    return JobAdmission(
        org_id=caller.org_id,
        user_id=caller.user_id,
        session_id=caller.session_id,
        permissions=sorted(permission.value for permission in caller.permissions),
    )
