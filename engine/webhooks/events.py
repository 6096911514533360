"""What deployments tell their subscribers: the words, and the message of each. Sends nothing: `deliveries.py` does."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlmodel import Session

from engine.store import subscriptions
from engine.store.sealing import Sealer
from engine.webhooks import deliveries
from engine.webhooks.schedule import Schedule


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


def publish(
    session: Session, sealer: Sealer, *, org_id: str, deployment_id: str, event: Event, data: Mapping[str, Any],
    key: str, now: datetime,
) -> int:  # fmt: skip
    """Tell all who subscribed, in the caller's transaction; returns to how many it is sent.

    Call it while the deployment's row is written in the same transaction: its lock keeps the messages in order.

    Args:
        data: JSON of what happened; `deployment_id` is added.
        key: names the news forever within the deployment: told twice, it is sent once (`g7:active`).
    """
    payload = {"type": event.value, "timestamp": now.isoformat(), "deployment_id": deployment_id, "data": dict(data)}
    told = 0
    for row in subscriptions.of_deployment(session, deployment_id):
        if event.value not in row.events and event is not Event.PING:
            continue
        deliveries.enqueue(
            session, sealer, org_id=org_id, event=event.value, subject_id=deployment_id, payload=payload,
            url=sealer.open(row.url_sealed), schedule=Schedule.EVENT, now=now, ordering_key=row.id,
            idempotency_key=f"{row.id}:{deployment_id}:{key}", secret_sealed=row.secret_sealed, subscription_id=row.id,
        )  # fmt: skip
        told += 1
    return told
