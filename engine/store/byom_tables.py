"""The table of own weights (BYOM): models that organisations brought. Their bytes are stored objects."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Column, Index, Text, text
from sqlmodel import Field, SQLModel

from engine.store.storage_tables import bytes_column
from engine.store.tables import json_column, time_column

_HOLDS_ITS_NAME = text("phase IN ('uploading', 'validating', 'distributing', 'ready')")
_LIVING = text("deleted_at IS NULL")


class ByomModelRow(SQLModel, table=True):
    """One model. Deleted ones stay as a record that it was."""

    __tablename__ = "byom_models"
    __table_args__ = (
        Index("one_living_model_per_name", "owner_id", "name", unique=True, sqlite_where=_HOLDS_ITS_NAME,
              postgresql_where=_HOLDS_ITS_NAME),
        Index("living_byom_models", "deployment_id", sqlite_where=_LIVING, postgresql_where=_LIVING),
    )  # fmt: skip
    id: str = Field(primary_key=True)  # byom_…
    org_id: str = Field(foreign_key="orgs.id", index=True)
    deployment_id: str | None = None  # None: the organisation's, for deployments made of it alone
    owner_id: str  # within it names are unique: the deployment, else the organisation
    name: str
    generation: int = 1
    phase: str  # a `model.byom.Phase`
    reason: str = Field(default="", sa_column=Column(Text, nullable=False))
    object_id: str | None = Field(default=None, index=True)  # the stored object; no key: its row is forgotten in time
    session_id: str | None = None  # the upload in parts it came or comes by
    size_bytes: int | None = bytes_column()
    declared_sha256: str | None = None
    sha256: str | None = None
    header: dict[str, Any] = json_column(dict)  # a `byom.gguf.Header`; {} until it was read
    context_tokens: int = 0  # it is served with, beside a model of the catalog; 0: what the machine has room for
    need_gib: float = 0.0  # GPU memory with that context
    places: dict[str, Any] = json_column(dict)  # `deployment/replica` → a `byom.reconciling` Place
    created_by: str
    created_at: datetime = time_column(nullable=False)
    updated_at: datetime = time_column(nullable=False)
    ready_at: datetime | None = time_column()
    delete_requested_at: datetime | None = time_column()
    deleted_at: datetime | None = time_column()
