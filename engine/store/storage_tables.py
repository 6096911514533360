"""The tables of stored objects: what is stored, uploads in parts, and what was read over the public internet."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Column, Index, text
from sqlmodel import Field, SQLModel

from engine.store.tables import time_column


def bytes_column(*, nullable: bool = True) -> Any:
    """A number of bytes."""
    return Field(default=None if nullable else 0, sa_column=Column(BigInteger, nullable=nullable))


class StoredObjectRow(SQLModel, table=True):
    """One object. Deleted ones stay until everything they cost is recorded, then a while longer."""

    __tablename__ = "storage_objects"
    id: str = Field(primary_key=True)
    org_id: str = Field(foreign_key="orgs.id")
    kind: str
    filename: str  # a label: it never becomes part of a path on our disk
    content_type: str
    phase: str  # a `model.storage.Phase`
    backend: str  # disk | s3
    location: str = ""  # disk: the blob's name, "" before the first byte; s3: the key in the organisation's bucket
    size_bytes: int | None = bytes_column()
    sha256: str | None = None
    declared_bytes: int | None = bytes_column()
    declared_sha256: str | None = None
    public_token: str | None = Field(default=None, unique=True)  # None: not public
    created_by: str  # who the audit log names
    key_id: str | None = None  # whose budget its cost counts under
    created_at: datetime = time_column(nullable=False)
    uploaded_at: datetime | None = time_column()
    committed_at: datetime | None = time_column()
    deleted_at: datetime | None = time_column()
    metered_until: datetime | None = time_column()  # its time at rest is recorded up to here
    __table_args__ = (
        Index("ix_storage_objects_org", "org_id", "created_at", "id"),
        Index("ix_storage_objects_name", "org_id", "filename"),
        Index(
            "unmetered_storage_objects", "metered_until",
            sqlite_where=text("committed_at IS NOT NULL AND (deleted_at IS NULL OR metered_until < deleted_at)"),
            postgresql_where=text("committed_at IS NOT NULL AND (deleted_at IS NULL OR metered_until < deleted_at)"),
        ),
        Index(
            "uncommitted_storage_objects", "created_at",
            sqlite_where=text("phase IN ('pending', 'uploaded')"),
            postgresql_where=text("phase IN ('pending', 'uploaded')"),
        ),
    )  # fmt: skip


class UploadSessionRow(SQLModel, table=True):
    """An object that arrives in parts, resumable until `expires_at`."""

    __tablename__ = "storage_sessions"
    id: str = Field(primary_key=True)
    object_id: str = Field(foreign_key="storage_objects.id", index=True)
    org_id: str
    state: str = "open"  # open | completing | completed | aborted
    size_bytes: int = bytes_column(nullable=False)
    part_bytes: int = bytes_column(nullable=False)
    location: str  # disk: name of the file all parts are written into; s3: the server's upload id
    created_at: datetime = time_column(nullable=False)
    expires_at: datetime = time_column(nullable=False)
    ended_at: datetime | None = time_column()
    __table_args__ = (
        Index(
            "open_storage_sessions", "expires_at",
            sqlite_where=text("state IN ('open', 'completing')"),
            postgresql_where=text("state IN ('open', 'completing')"),
        ),
    )  # fmt: skip


class UploadPartRow(SQLModel, table=True):
    """A part that arrived whole (disk backend; an S3 server keeps its own list)."""

    __tablename__ = "storage_parts"
    session_id: str = Field(primary_key=True, foreign_key="storage_sessions.id")
    number: int = Field(primary_key=True)
    size_bytes: int = bytes_column(nullable=False)
    sha256: str
    uploaded_at: datetime = time_column(nullable=False)


class EgressRow(SQLModel, table=True):
    """Bytes of one object that left for the public internet in one hour (full hours since 1970, UTC)."""

    __tablename__ = "storage_egress"
    object_id: str = Field(primary_key=True)
    hour: int = Field(primary_key=True)
    org_id: str = Field(index=True)
    key_id: str | None = None
    sent_bytes: int = bytes_column(nullable=False)
    metered_bytes: int = bytes_column(nullable=False)
    last_at: datetime = time_column(nullable=False)
    __table_args__ = (
        Index(
            "unmetered_storage_egress", "hour",
            sqlite_where=text("metered_bytes < sent_bytes"), postgresql_where=text("metered_bytes < sent_bytes"),
        ),
    )  # fmt: skip


class EgressMonthRow(SQLModel, table=True):
    """What of an organisation's egress of one month (`2026-11`, UTC) is metered: decides when the free bytes end."""

    __tablename__ = "storage_egress_months"
    org_id: str = Field(primary_key=True)
    month: str = Field(primary_key=True)
    metered_bytes: int = bytes_column(nullable=False)
