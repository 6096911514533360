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


_POSTED = (
    ("chat/completions", "chat", "Chat (OpenAI's request; `stream` for SSE)"),
    ("completions", "complete", "Complete a text (OpenAI's request)"),
    ("embeddings", "embed", "Embed texts (OpenAI's request)"),
    ("responses", "respond", "Respond (OpenAI's request; `stream` for SSE)"),
    ("responses/{response_id}/cancel", "cancel_response", "Cancel a response that runs in the background"),
    ("rerank", "rerank", "Order documents by how well they answer a query"),
    ("score", "score", "Score pairs of texts"),
    ("tokenize", "tokenize", "Tokens of a text or of a chat"),
    ("detokenize", "detokenize", "Text of tokens"),
    ("audio/transcriptions", "transcribe", "Transcribe speech (OpenAI's multipart request)"),
    ("audio/translations", "translate", "Translate speech (OpenAI's multipart request)"),
)
_READ = (
    ("GET", "models", "list_models", "Models this deployment serves (OpenAI's answer)"),
    ("GET", "responses/{response_id}", "get_response", "A stored response"),
    ("DELETE", "responses/{response_id}", "delete_response", "Delete a stored response"),
)


def call_model(
    deployment_id: str, caller: CallerArg, deps: DepsArg, body: dict[str, Any] = Body(default_factory=dict)
) -> None:
    """Passed through to the deployment unchanged, where its model server has it; else its own 404.

    409 with the `status` while the deployment does not serve, 503 while no replica is ready. A sleeping one wakes: the
    request waits, a stream gets comments meanwhile; 504 `wake_timeout` when that takes too long. Behind the concurrency
    limit requests wait their turn; 429 when too many do. Through an organisation the caller must be its member: with a
    session, a key of it, or a key of the caller's personal organisation.
    """
    refuse(deployment_id, caller, deps)


def read_from_model(deployment_id: str, caller: CallerArg, deps: DepsArg) -> None:
    refuse(deployment_id, caller, deps)


for _router, _suffix, _words in ((router, "", ""), (org_router, "_for_org", ", routed through an organisation")):
    for _path, _name, _summary in _POSTED:
        _router.add_api_route(f"/{_path}", call_model, methods=["POST"], name=_name + _suffix,
                              summary=_summary + _words, responses=_ANSWER)  # fmt: skip
    for _method, _path, _name, _summary in _READ:
        _router.add_api_route(f"/{_path}", read_from_model, methods=[_method], name=_name + _suffix,
                              summary=_summary + _words, responses=_ANSWER)  # fmt: skip


class Admission(BaseModel):
    """Whom the gateway may serve: it asks for callers with a browser session, which it does not know."""

    org_id: str
    user_id: str | None
    session_id: str | None


@org_router.post("/admission", name="admit_for_org", include_in_schema=False)
@org_router.get("/admission", name="admit_reading_for_org", include_in_schema=False)
@router.post("/admission", name="admit", include_in_schema=False)
@router.get("/admission", name="admit_reading", include_in_schema=False)
@org_router.delete("/admission", name="admit_deleting_for_org", include_in_schema=False)
@router.delete("/admission", name="admit_deleting", include_in_schema=False)
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
