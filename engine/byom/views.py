"""A model on the wire: one answer for the gateway, which receives it, and the API, which is asked about it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from engine.model.byom import PREFIX
from engine.store.byom_tables import ByomModelRow


class ModelPlaceView(BaseModel):
    """How far a model is on one machine."""

    deployment_id: str
    replica: str
    status: str = Field(description="waiting, downloading, loading, ready or failed")
    reason: str
    attempts: int


class ModelView(BaseModel):
    """Own weights. `model` is what requests name; `status`: uploading, validating, distributing, ready or failed."""

    id: str
    name: str
    model: str
    deployment_id: str | None = Field(description="null: the organisation's, for deployments made of it alone")
    status: str
    reason: str
    size_bytes: int | None
    sha256: str | None
    upload_id: str | None = Field(description="the upload in parts it came by")
    header: dict[str, Any] | None = Field(description="what the GGUF file says of itself; null until it was read")
    context_tokens: int | None = Field(description="it is served with; null: as long as the machine has room for")
    memory_gib: float | None = Field(description="GPU memory it is given")
    places: list[ModelPlaceView]
    created_at: datetime
    ready_at: datetime | None


def model_view(row: ByomModelRow) -> ModelView:
    places = []
    for key, place in sorted(row.places.items()):
        deployment, _, replica = key.partition("/")
        places.append(
            ModelPlaceView(
                deployment_id=deployment, replica=replica, status=place["state"], reason=place["reason"],
                attempts=place["attempts"],
            )
        )  # fmt: skip
    return ModelView(
        id=row.id, name=row.name, model=PREFIX + row.name, deployment_id=row.deployment_id, status=row.phase,
        reason=row.reason, size_bytes=row.size_bytes, sha256=row.sha256, upload_id=row.session_id,
        header=row.header or None, context_tokens=row.context_tokens or None, memory_gib=row.need_gib or None,
        places=places, created_at=row.created_at, ready_at=row.ready_at,
    )  # fmt: skip
