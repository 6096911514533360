"""Tables of webhooks: signing secrets, deliveries, and every attempt at one. Rows are records, not behaviour."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Column, Index, Text, text
from sqlmodel import Field, SQLModel

from engine.store.tables import json_column, time_column

_PENDING = text("state = 'pending'")


class WebhookSecretRow(SQLModel, table=True):
    """What an organisation's webhooks are signed with; the former one still signs beside it until `previous_until`."""

    __tablename__ = "webhook_secrets"
    org_id: str = Field(primary_key=True, foreign_key="orgs.id")
    secret_sealed: str = Field(sa_column=Column(Text, nullable=False))
    previous_sealed: str = Field(default="", sa_column=Column(Text, nullable=False))
    previous_until: datetime | None = time_column()
    created_at: datetime = time_column(nullable=False)


class SubscriptionRow(SQLModel, table=True):
    """Who wants to hear what of one deployment. Its own secret signs; the former one too until `previous_until`."""

    __tablename__ = "webhook_subscriptions"
    id: str = Field(primary_key=True)  # whs_...
    org_id: str = Field(foreign_key="orgs.id", index=True)
    deployment_id: str = Field(index=True)
    url_sealed: str = Field(sa_column=Column(Text, nullable=False))
    url_shown: str
    events: list[str] = json_column(list)  # `webhooks.events.Event`s
    secret_sealed: str = Field(sa_column=Column(Text, nullable=False))
    previous_sealed: str = Field(default="", sa_column=Column(Text, nullable=False))
    previous_until: datetime | None = time_column()
    created_by: str = ""
    created_at: datetime = time_column(nullable=False)
    deleted_at: datetime | None = time_column()


class DeliveryRow(SQLModel, table=True):
    """One message to one address, sent until it was taken or given up."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index("deliveries_due", "next_attempt_at", sqlite_where=_PENDING, postgresql_where=_PENDING),
        Index("deliveries_ended", "finished_at"),
        Index("deliveries_in_order", "ordering_key", "sequence", unique=True),
    )
    id: str = Field(primary_key=True)  # whd_…: the `webhook-id` header, the same in every attempt
    org_id: str = Field(index=True)
    event: str  # `job.succeeded`, `deployment.active`
    subject_id: str = Field(index=True)
    subscription_id: str | None = Field(default=None, index=True)  # None: the address came with the request
    url_sealed: str = Field(sa_column=Column(Text, nullable=False))  # addresses may carry tokens
    url_shown: str  # without query and user
    payload_sealed: str = Field(sa_column=Column(Text, nullable=False))  # "" once it was forgotten
    secret_sealed: str = Field(default="", sa_column=Column(Text, nullable=False))  # "": the organisation's
    schedule: str = "job"  # a `webhooks.schedule.Schedule`
    ordering_key: str | None = None  # messages with the same key arrive in the order of `sequence`
    sequence: int = 0
    idempotency_key: str = Field(unique=True)
    state: str = Field(default="pending", index=True)  # a `webhooks.schedule.DeliveryState`
    attempts: int = 0
    next_attempt_at: datetime | None = time_column()
    last_status: int | None = None
    last_error: str = ""
    created_at: datetime = time_column(nullable=False)
    finished_at: datetime | None = time_column()


class DeliveryAttemptRow(SQLModel, table=True):
    """What came of one attempt."""

    __tablename__ = "webhook_attempts"
    delivery_id: str = Field(primary_key=True)
    number: int = Field(primary_key=True)
    at: datetime = time_column(nullable=False)
    duration_ms: int
    status: int | None = None  # None: no answer
    error: str = ""
    answer: str = ""  # how it began
