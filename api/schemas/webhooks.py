"""Webhook deliveries and signing secrets, on the wire."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, Field

from engine.store.webhook_tables import DeliveryAttemptRow, DeliveryRow, WebhookSecretRow
from engine.webhooks.schedule import DeliveryState


class DeliveryView(BaseModel):
    """One message and how far it came. `url` is shown without its query, which may hold secrets."""

    id: str = Field(description="the `webhook-id` header of every attempt")
    event: str
    subject_id: str
    url: str
    state: DeliveryState
    attempts: int
    last_status: int | None
    last_error: str
    next_attempt_at: datetime | None
    created_at: datetime
    finished_at: datetime | None


class AttemptView(BaseModel):
    """One attempt; `status` is null when there was no answer, `answer` how it began."""

    number: int
    at: datetime
    duration_ms: int
    status: int | None
    error: str
    answer: str


class DeliveryDetail(DeliveryView):
    """A delivery with its log, oldest attempt first."""

    log: list[AttemptView]


class DeliveryPage(BaseModel):
    """Newest first; `after` takes the last one's id for the next page."""

    data: list[DeliveryView]
    has_more: bool


class SecretView(BaseModel):
    """The signing secret without itself. `created_at` is null while nothing was ever signed."""

    created_at: datetime | None
    previous_until: datetime | None = Field(description="until then messages are signed with the former one too")


class NewSecret(BaseModel):
    """A new signing secret, shown this once."""

    secret: str
    created_at: datetime
    previous_until: datetime | None


def delivery_view(row: DeliveryRow) -> DeliveryView:
    return DeliveryView.model_validate(_fields(row))


def delivery_detail(row: DeliveryRow, log: list[DeliveryAttemptRow]) -> DeliveryDetail:
    attempts = [AttemptView.model_validate(a, from_attributes=True) for a in log]
    return DeliveryDetail.model_validate(_fields(row) | {"log": attempts})


def secret_view(row: WebhookSecretRow | None) -> SecretView:
    if row is None:
        return SecretView(created_at=None, previous_until=None)
    return SecretView(created_at=row.created_at, previous_until=row.previous_until)


def _fields(row: DeliveryRow) -> dict[str, object]:
    return {
        "id": row.id, "event": row.event, "subject_id": row.subject_id, "url": row.url_shown, "state": row.state,
        "attempts": row.attempts, "last_status": row.last_status, "last_error": row.last_error,
        "next_attempt_at": row.next_attempt_at, "created_at": row.created_at, "finished_at": row.finished_at,
    }  # fmt: skip
