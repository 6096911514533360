"""Tables of handler deployments and of what their workers do. Rows are records, not behaviour."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Column, Index, Text, text
from sqlmodel import Field, SQLModel

from engine.store.tables import json_column, time_column

_LIVING = text("deleted_at IS NULL")


class HandlerRow(SQLModel, table=True):
    """A handler deployment: spec (edited by the API), status (written by its reconciler only)."""

    __tablename__ = "handlers"
    __table_args__ = (
        Index("one_living_slug_per_org", "org_id", "slug", unique=True, sqlite_where=_LIVING, postgresql_where=_LIVING),
    )
    id: str = Field(primary_key=True)  # hdl_…
    org_id: str = Field(foreign_key="orgs.id", index=True)
    slug: str = Field(index=True)
    name: str
    spec: dict[str, Any] = json_column(dict)  # a `model.handler.HandlerSpec`
    secrets_sealed: str = Field(default="", sa_column=Column(Text, nullable=False))  # JSON of secret environment
    registry_auth_sealed: str = Field(default="", sa_column=Column(Text, nullable=False, server_default=""))
    generation: int = 1
    created_at: datetime = time_column(nullable=False)
    updated_at: datetime = time_column(nullable=False)
    delete_requested_at: datetime | None = time_column()
    suspended_at: datetime | None = time_column()
    suspended_reason: str = ""
    request_digest: str | None = None
    created_by: str | None = None
    created_with: str | None = None
    # identity of its workers: written once, at creation
    worker_token_sealed: str = Field(sa_column=Column(Text, nullable=False))
    worker_key_sealed: str = Field(sa_column=Column(Text, nullable=False))
    worker_certificate_pem: str = Field(sa_column=Column(Text, nullable=False))
    worker_fingerprint: str
    # status: the reconciler's
    phase: str = Field(default="provisioning", index=True)
    phase_reason: str = ""
    observed_generation: int = 0
    workers: list[dict[str, Any]] = json_column(list)  # `model.handler.Worker`s that should exist, and their phases
    workers_made: int = 0  # how many names were given out: w0, w1, …
    placement_revision: int = 0  # raised with every change of `workers` that its stack has to follow
    prepared_hosts: list[str] = json_column(list)  # Docker hosts that keep its image and network, workers or not
    start_failures: dict[str, Any] = json_column(dict)  # a `model.handler.StartFailures`; {} while there are none
    refusals: list[dict[str, Any]] = json_column(list)  # `model.handler.Refusal`s that still count
    cold_starts: list[dict[str, Any]] = json_column(list)  # the last `model.handler.ColdStart`s, newest first
    conditions: list[dict[str, Any]] = json_column(list)
    deleted_at: datetime | None = time_column()


class WorkerActivityRow(SQLModel, table=True):
    """What the dispatcher knows of one worker; written by the process that dispatches, read by the reconciler."""

    __tablename__ = "worker_activity"
    handler_id: str = Field(primary_key=True)
    worker: str = Field(primary_key=True)
    protocol: str = ""  # a `model.handler.Protocol`; "" until it was found out
    opened_at: datetime | None = time_column()  # when it first said anything: also that it is not ready yet, or a ping
    ready_at: datetime | None = time_column()  # when its handler first answered or asked
    idle_since: datetime | None = time_column()  # None while it has work, or was never ready
    last_seen_at: datetime | None = time_column()
    in_flight: int = 0
    drained_at: datetime | None = time_column()  # the dispatcher saw it draining and without work: it may go
    boot_ms: int | None = None  # from created_at to ready_at
