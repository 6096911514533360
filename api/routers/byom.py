"""`/models`: own weights, but for the bytes of a direct upload, which the gateway takes in."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from api.deps import CallerArg, Deps, DepsArg
from api.schemas.byom import ModelPage, ModelUploadCreate, ModelUploadView, upload_view
from engine.byom.models import Offer, OwnWeights
from engine.byom.views import ModelView, model_view
from engine.model.access import Permission
from engine.model.errors import Unavailable
from engine.storage.sessions import UploadSessions
from engine.store import byom
from stacks.byom_room import room_gib

router = APIRouter(prefix="/models", tags=["models"])

_FORM: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "name"],
                    "properties": {
                        "file": {"type": "string", "format": "binary", "description": "a GGUF file, 20 GB at most"},
                        "name": {"type": "string", "description": "requests name the model `byom:NAME`"},
                        "deployment_id": {"type": "string", "description": "that serves it; may be left out"},
                        "sha256": {"type": "string", "description": "compared with what came"},
                    },
                }
            }
        },
    }
}


def weights_of(deps: Deps) -> OwnWeights:
    """The service, which moves no bytes here."""
    return OwnWeights(deps.storage, room_gib, deps.new_id, most_bytes=deps.own_weights_bytes)


@router.post("/upload", name="upload_model", status_code=201, summary="Bring own weights: a GGUF file in a form",
             openapi_extra=_FORM, responses={413: {"description": "larger than the limit"}})  # fmt: skip
def upload_model(caller: CallerArg, deps: DepsArg) -> ModelView:
    """The file is looked at while it comes: what is no GGUF file, or does not fit on the deployment's GPU, gets a 422.

    Then poll `GET /models/byom/{model_id}` until `status` is `ready`, and name `byom:NAME` as the `model` of requests.
    Without `deployment_id` the organisation keeps it, for deployments made of it alone (`model_id`: `byom:NAME`).
    """
    raise Unavailable("files go through the gateway's public port, which did not take this one: see its log")


@router.post("/uploads", name="begin_model_upload", status_code=201, summary="Begin an upload in parts")
def begin_model_upload(body: ModelUploadCreate, caller: CallerArg, deps: DepsArg) -> ModelUploadView:
    """PUT each part to its URL, in any order, again after a failure; then complete. Good for 24 hours."""
    offer = Offer.of(body.name, body.deployment_id, body.sha256)
    row, upload = weights_of(deps).begin_parts(caller, offer, body.size_bytes, body.part_size_bytes)
    _, parts = UploadSessions(deps.storage).parts(caller, upload.id)
    return upload_view(row, upload, parts)


@router.get("/uploads/{upload_id}/parts", name="list_model_parts", summary="The parts of an upload: what is missing")
def list_model_parts(
    upload_id: str,
    caller: CallerArg,
    deps: DepsArg,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
    after: Annotated[int, Query(ge=0, le=10_000)] = 0,
) -> ModelUploadView:
    row = weights_of(deps).upload_of(caller, upload_id)
    upload, parts = UploadSessions(deps.storage).parts(caller, upload_id, after=after, limit=limit)
    return upload_view(row, upload, parts)


@router.post("/uploads/{upload_id}/complete", name="complete_model_upload", status_code=202,
             summary="All parts are there: look at the file")  # fmt: skip
def complete_model_upload(upload_id: str, caller: CallerArg, deps: DepsArg) -> ModelView:
    """409 names missing parts. What is wrong with the file is then its `reason`, with `status` failed."""
    return model_view(weights_of(deps).complete(caller, upload_id))


@router.delete("/uploads/{upload_id}", name="abort_model_upload", summary="Give up an upload in parts")
def abort_model_upload(upload_id: str, caller: CallerArg, deps: DepsArg) -> ModelView:
    return model_view(weights_of(deps).abort(caller, upload_id))


@router.get("/byom", name="list_models_byom", summary="Own weights, newest first")
def list_models_byom(
    caller: CallerArg,
    deps: DepsArg,
    deployment_id: Annotated[str | None, Query(max_length=100)] = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: Annotated[str | None, Query(max_length=100)] = None,
) -> ModelPage:
    only = None if caller.grants is None else [i for i in caller.grants if caller.may(Permission.DEPLOYMENT_READ, i)]
    with deps.database.read() as session:
        rows = byom.page(
            session, caller.org_id, deployment_id=deployment_id, only=only, after=after, limit=limit + 1
        )  # fmt: skip
    return ModelPage(data=[model_view(row) for row in rows[:limit]], has_more=len(rows) > limit)


@router.get("/byom/{model_id}", name="get_model_byom", summary="One model of own weights, and how far it is")
def get_model_byom(model_id: str, caller: CallerArg, deps: DepsArg) -> ModelView:
    return model_view(weights_of(deps).get(caller, model_id))


@router.delete("/byom/{model_id}", name="delete_model_byom", status_code=202, summary="Delete own weights")
def delete_model_byom(model_id: str, caller: CallerArg, deps: DepsArg) -> ModelView:
    """Machines end it, then its file is removed; it costs nothing from then on."""
    return model_view(weights_of(deps).delete(caller, model_id))
