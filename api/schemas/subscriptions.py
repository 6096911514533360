"""Subscriptions to a deployment's events, on the wire."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.webhooks import DeliveryDetail
from engine.store.webhook_tables import SubscriptionRow
from engine.webhooks.events import SUBSCRIBABLE

_EVENTS = f"one or more of {', '.join(SUBSCRIBABLE)}"


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)


class SubscriptionCreate(_Request):
    """Body of `POST /deployments/{id}/webhooks`."""

    url: str = Field(examples=["https://your-service.com/hooks/ainative"], description="http(s), at a public address")
    events: list[str] = Field(max_length=100, examples=[["deployment.active"]], description=_EVENTS)


class SubscriptionChange(_Request):
    """Body of `PATCH /deployments/{id}/webhooks/{webhook_id}`; what is left out stays as it is."""

    url: str | None = Field(None, description="what is still to be sent goes there too")
    events: list[str] | None = Field(None, max_length=100, description=_EVENTS)


class SubscriptionView(BaseModel):
    """A subscription. `url` is shown without its query, which may hold secrets."""

    id: str
    url: str
    events: list[str]
    created_at: datetime
    previous_secret_until: datetime | None = Field(description="until then messages are signed with the former one too")


class NewSubscription(SubscriptionView):
    """A new subscription with what signs its messages."""

    secret: str = Field(description="shown this once")


class SubscriptionList(BaseModel):
    """Those that hold, oldest first."""

    data: list[SubscriptionView]


class TestDelivery(BaseModel):
    """The `ping` that is being sent; `GET …/deliveries` and `GET /v1/webhooks/deliveries/{id}` say what came of it."""

    __test__ = False  # no test, whatever its name looks like to pytest

    delivery_id: str


class SubscriptionDeliveries(BaseModel):
    """Newest first, each with its attempts; `after` takes the last one's id for the next page."""

    data: list[DeliveryDetail]
    has_more: bool


def subscription_view(row: SubscriptionRow) -> SubscriptionView:
    return SubscriptionView(
        id=row.id, url=row.url_shown, events=row.events, created_at=row.created_at,
        previous_secret_until=row.previous_until,
    )  # fmt: skip
