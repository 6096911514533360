"""The tables of jobs: what was asked and how it went, and apart from that what went in and came out, sealed."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from sqlalchemy import Column, Index, LargeBinary, Text, text
from sqlmodel import Field, SQLModel

from engine.store.ledger_tables import ExactDecimal
from engine.store.tables import time_column

OPEN = text("state IN ('queued', 'running')")
"""The condition of the indexes of jobs that are not over. SQLite uses them only in queries that say it literally."""

_KEPT = text("purged_at IS NULL AND finished_at IS NOT NULL")


class JobRow(SQLModel, table=True):
    """One job. Small on purpose: it is written three times and listed by the thousand."""

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_org", "org_id", "created_at", "id"),
        Index("ix_jobs_handler", "handler_id", "created_at", "id"),
        Index("open_jobs", "handler_id", "state", "created_at", "id", sqlite_where=OPEN, postgresql_where=OPEN),
        Index("open_jobs_by_expiry", "expires_at", sqlite_where=OPEN, postgresql_where=OPEN),
        Index("kept_results", "finished_at", sqlite_where=_KEPT, postgresql_where=_KEPT),
    )
    id: str = Field(primary_key=True)  # job_…
    org_id: str
    handler_id: str
    slug: str  # as it was at that moment
    key_id: str = ""
    created_by: str = ""
    tier: str  # of the organisation when it was accepted
    dialect: str = "gpu"  # whose words its webhook speaks: gpu | runpod
    state: str  # a `model.job.JobState`
    reason: str = ""  # a `model.job.Reason`
    attempts: int = 0  # how often it was begun; together with `state` what every later write is guarded by
    worker: str = ""
    pool: str = ""
    protocol: str = ""
    created_at: datetime = time_column(nullable=False)
    started_at: datetime | None = time_column()
    finished_at: datetime | None = time_column()
    expires_at: datetime = time_column(nullable=False)  # while it is queued
    execution_timeout_ms: int
    execution_ms: int | None = None
    cost_usd: Decimal | None = Field(default=None, sa_column=Column(ExactDecimal()))
    webhook_url_sealed: str = Field(default="", sa_column=Column(Text, nullable=False))
    request_digest: str = ""  # of a request that came with an idempotency key
    retry_of: str | None = None
    purged_at: datetime | None = time_column()  # what went in and came out was deleted


class JobPayloadRow(SQLModel, table=True):
    """What went in or came out; deleted at retention. Apart, so that lists and updates never carry megabytes."""

    __tablename__ = "job_payloads"
    job_id: str = Field(primary_key=True)
    part: str = Field(primary_key=True)  # input | result | progress
    sealed: bytes = Field(sa_column=Column(LargeBinary, nullable=False))


class JobPartialRow(SQLModel, table=True):
    """One partial output, in the order it came; those of an attempt that was given up are deleted."""

    __tablename__ = "job_partials"
    job_id: str = Field(primary_key=True)
    number: int = Field(primary_key=True)
    sealed: bytes = Field(sa_column=Column(LargeBinary, nullable=False))
