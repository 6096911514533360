"""What deployments tell their subscribers: the words, and the message of each. Sends nothing: `deliveries.py` does."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlmodel import Session

from engine.store import subscriptions, webhooks
from engine.store.sealing import Sealer
from engine.webhooks import deliveries
from engine.webhooks.schedule import DeliveryState, Schedule


class Event(StrEnum):
    """The documented events, and ours: what else changes the life of a deployment."""

    ACTIVE = "deployment.active"
    DEGRADED = "deployment.degraded"
    RECOVERED = "deployment.recovered"
    SLA_BREACH = "deployment.sla_breach"
    SCALED = "deployment.scaled"
    FAILED = "deployment.failed"
    ASLEEP = "deployment.asleep"
    AWAKE = "deployment.awake"
    TEARDOWN = "deployment.teardown"
    PING = "ping"  # sent on request only


MOST_WAITING = 500
"""Messages to one subscription: each may take ten minutes while a receiver is down, and news comes faster."""

TOO_MANY = f"its receiver takes nothing: {MOST_WAITING} newer messages wait"

SUBSCRIBABLE = tuple(event for event in Event if event is not Event.PING)


def publish(
    session: Session, sealer: Sealer, *, org_id: str, deployment_id: str, event: Event, data: Mapping[str, Any],
    key: str, now: datetime,
) -> int:  # fmt: skip
    """Tell all who subscribed, in the caller's transaction; returns to how many it is sent.

    Whoever calls it for one deployment at the same time waits here, until the other's transaction ends: messages to a
    subscription arrive in the order of the commits. Call it late in the transaction.

    Args:
        data: JSON of what happened; `deployment_id` is added.
        key: names the news forever within the deployment: told twice, it is sent once (`g7:active`).
    """
    told = [row for row in subscriptions.locked(session, deployment_id) if event.value in row.events]
    for row in told:
        deliveries.enqueue(
            session, sealer, org_id=org_id, event=event.value, subject_id=deployment_id,
            payload=message(event, deployment_id, data, now), url=sealer.open(row.url_sealed),
            schedule=Schedule.EVENT, now=now, ordering_key=row.id, idempotency_key=f"{row.id}:{deployment_id}:{key}",
            subscription_id=row.id,
        )  # fmt: skip
        webhooks.give_up_oldest(session, row.id, MOST_WAITING, DeliveryState.GIVEN_UP.value, TOO_MANY, now)
    return len(told)


def message(event: Event, deployment_id: str, data: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """The body, in the form Standard Webhooks recommends."""
    return {"type": event.value, "timestamp": now.isoformat(), "deployment_id": deployment_id, "data": dict(data)}
