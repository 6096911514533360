"""Own weights (BYOM) on the wire: uploads in parts, and lists. The model itself is `engine/byom/views.py`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from engine.byom.views import ModelView, model_view
from engine.storage.sessions import PartState, plan_of
from engine.store.byom_tables import ByomModelRow
from engine.store.storage_tables import UploadSessionRow


class ModelUploadCreate(BaseModel):
    """A GGUF file that is about to be sent in parts."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(min_length=1, max_length=100, description="requests name the model `byom:NAME`",
                      examples=["my-model-v2"])  # fmt: skip
    deployment_id: str | None = Field(
        None, max_length=100, description="that serves it; without one the organisation keeps it for deployments made "
        "of it alone (`model_id`: `byom:NAME`)",
    )  # fmt: skip
    size_bytes: int = Field(ge=1, le=2**62)
    sha256: str | None = Field(None, max_length=100, description="64 hexadecimal digits; compared at the end")
    part_size_bytes: int | None = Field(None, description="5 MiB to 5 GiB; by default 64 MiB, more for large files")


class ModelPartView(BaseModel):
    """One part; `uploaded_at` null: it is missing, PUT `size_bytes` bytes to `upload_url`."""

    number: int
    size_bytes: int
    uploaded_at: datetime | None
    upload_url: str


class ModelUploadView(BaseModel):
    """An upload in parts, resumable until `expires_at`: `parts` is what a client goes on from."""

    upload_id: str
    model: ModelView
    part_size_bytes: int
    part_count: int
    expires_at: datetime
    parts: list[ModelPartView] = Field(description="by number; `after` takes the last one's for the next page")
    has_more: bool


class ModelPage(BaseModel):
    """Newest first; `after` takes the last one's id for the next page."""

    data: list[ModelView]
    has_more: bool


def upload_view(row: ByomModelRow, upload: UploadSessionRow, parts: Sequence[PartState]) -> ModelUploadView:
    plan = plan_of(upload)
    return ModelUploadView(
        upload_id=upload.id, model=model_view(row), part_size_bytes=plan.part_bytes, part_count=plan.count,
        expires_at=upload.expires_at,
        parts=[
            ModelPartView(
                number=part.number, size_bytes=part.size_bytes,
                uploaded_at=part.arrived.uploaded_at if part.arrived else None, upload_url=part.url,
            )
            for part in parts
        ],
        has_more=bool(parts) and parts[-1].number < plan.count,
    )  # fmt: skip
