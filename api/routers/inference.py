"""The inference paths as the API sees them: only to refuse what the gateway, which serves them, does not know."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Body
from pydantic import BaseModel

from api.deps import CallerArg, DepsArg
from api.schemas.deployments import status_of
from engine.gateway.routes import RETRY_AFTER_SECONDS, SERVING
from engine.model.errors import Conflict, InsufficientCredit, Unavailable
from engine.store.deployments import owned

router = APIRouter(prefix="/deployments/{deployment_id}", tags=["inference"])
org_router = APIRouter(prefix="/orgs/{org_id}/deployments/{deployment_id}", tags=["inference"])

_ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"description": "the model server's own answer, JSON or an event stream", "content": {"application/json": {}}}
}


@org_router.post("/chat/completions", name="chat_for_org", summary="Chat, routed through an organisation",
                 responses=_ANSWER)  # fmt: skip
@org_router.post("/completions", name="complete_for_org", summary="Complete a text, routed through an organisation",
                 responses=_ANSWER)  # fmt: skip
@org_router.post("/embeddings", name="embed_for_org", summary="Embed texts, routed through an organisation",
                 responses=_ANSWER)  # fmt: skip
@router.post("/chat/completions", name="chat", summary="Chat (OpenAI's request; `stream` for SSE)", responses=_ANSWER)
@router.post("/completions", name="complete", summary="Complete a text (OpenAI's request)", responses=_ANSWER)
@router.post("/embeddings", name="embed", summary="Embed texts (OpenAI's request)", responses=_ANSWER)
def call_model(
    deployment_id: str, caller: CallerArg, deps: DepsArg, body: dict[str, Any] = Body(default_factory=dict)
) -> None:
    """Passed through to the deployment unchanged.

    409 with the `status` while the deployment does not serve, 503 while no replica is ready. Through an organisation
    the caller must be its member: with a session, a key of it, or a key of the caller's personal organisation.
    """
    refuse(deployment_id, caller, deps)


@org_router.get("/models", name="list_models_for_org", summary="Models of a deployment, routed through an organisation",
                responses=_ANSWER)  # fmt: skip
@router.get("/models", summary="Models this deployment serves (OpenAI's answer)", responses=_ANSWER)
def list_models(deployment_id: str, caller: CallerArg, deps: DepsArg) -> None:
    refuse(deployment_id, caller, deps)


class Admission(BaseModel):
    """Whom the gateway may serve: it asks for callers with a browser session, which it does not know."""

    org_id: str
    user_id: str | None
    session_id: str | None


@org_router.post("/admission", name="admit_for_org", include_in_schema=False)
@org_router.get("/admission", name="admit_reading_for_org", include_in_schema=False)
@router.post("/admission", name="admit", include_in_schema=False)
@router.get("/admission", name="admit_reading", include_in_schema=False)
def admission(deployment_id: str, caller: CallerArg, deps: DepsArg) -> Admission:
    """The caller, who was found to have what an inference call with this method needs."""
    with deps.database.read() as session:
        owned(session, deployment_id, caller.org_id)
    return Admission(org_id=caller.org_id, user_id=caller.user_id, session_id=caller.session_id)


def refuse(deployment_id: str, caller: CallerArg, deps: DepsArg) -> None:
    """Say why the gateway did not serve this: unknown, not serving, or so new that it does not know it yet."""
    with deps.database.read() as session:
        row = owned(session, deployment_id, caller.org_id)
    status = status_of(row)
    if row.suspended_reason:
        raise InsufficientCredit(f"deployment {deployment_id} is suspended: {row.suspended_reason}")
    if status not in SERVING:
        reason = f": {row.phase_reason}" if row.phase_reason else ""
        raise Conflict(
            f"deployment {deployment_id} is {status.value}{reason}; it answers when it is active", status=status.value
        )
    raise Unavailable(
        "the gateway does not route to this deployment yet; try again in a few seconds",
        status=status.value, retry_after_seconds=RETRY_AFTER_SECONDS,
    )  # fmt: skip
