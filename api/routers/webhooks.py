"""`/v1/webhooks`: what was sent and what came of it, sending again, the signing secret."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from sqlmodel import Session

from api.deps import CallerArg, DepsArg
from api.schemas.webhooks import (
    DeliveryDetail,
    DeliveryPage,
    NewSecret,
    SecretView,
    delivery_detail,
    delivery_view,
    secret_view,
)
from engine.model.errors import NotFound
from engine.store import audit, webhooks
from engine.store.webhook_tables import DeliveryRow
from engine.webhooks import deliveries, signing
from engine.webhooks.schedule import DeliveryState

router = APIRouter(prefix="/webhooks", tags=["webhooks"])


@router.get("/deliveries", summary="What was sent, newest first")
def list_deliveries(
    caller: CallerArg,
    deps: DepsArg,
    subject_id: Annotated[str | None, Query(description="of one job or deployment")] = None,
    state: DeliveryState | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: str | None = None,
) -> DeliveryPage:
    with deps.database.read() as session:
        rows = webhooks.page(
            session, caller.org_id, subject_id=subject_id, state=state.value if state else None, after=after,
            limit=limit + 1,
        )  # fmt: skip
    return DeliveryPage(data=[delivery_view(row) for row in rows[:limit]], has_more=len(rows) > limit)


@router.get("/deliveries/{delivery_id}", summary="One message with every attempt at it")
def get_delivery(delivery_id: str, caller: CallerArg, deps: DepsArg) -> DeliveryDetail:
    with deps.database.read() as session:
        return _detail(session, _owned(session, delivery_id, caller.org_id))


@router.post("/deliveries/{delivery_id}/replay", status_code=202, summary="Send a message once more")
def replay_delivery(delivery_id: str, caller: CallerArg, deps: DepsArg) -> DeliveryDetail:
    """It keeps its id, so that its receiver knows it again; it is signed anew."""
    with deps.database.write() as session:
        deliveries.replay(session, _owned(session, delivery_id, caller.org_id), deps.clock.now())
        return _detail(session, _owned(session, delivery_id, caller.org_id))


@router.get("/secret", summary="Since when the signing secret holds")
def get_webhook_secret(caller: CallerArg, deps: DepsArg) -> SecretView:
    with deps.database.read() as session:
        return secret_view(webhooks.secret_of(session, caller.org_id))


@router.post("/secret/rotate", summary="Make a new signing secret; it is shown this once")
def rotate_webhook_secret(caller: CallerArg, deps: DepsArg) -> NewSecret:
    """For 24 hours messages are signed with the former one too."""
    now = deps.clock.now()
    with deps.database.write() as session:
        secret = signing.rotate(session, deps.sealer, caller.org_id, now)
        row = webhooks.secret_of(session, caller.org_id)
        audit.record(
            session, at=now, actor=caller.actor, action="webhook_secret.rotated", subject=caller.org_id,
            org_id=caller.org_id,
        )  # fmt: skip
    return NewSecret(secret=secret, created_at=now, previous_until=row.previous_until if row else None)


def _owned(session: Session, delivery_id: str, org_id: str) -> DeliveryRow:
    row = webhooks.get(session, delivery_id, org_id=org_id)
    if row is None:
        raise NotFound(f"no delivery {delivery_id}")
    return row


def _detail(session: Session, row: DeliveryRow) -> DeliveryDetail:
    return delivery_detail(row, list(webhooks.attempts_of(session, row.id)))
