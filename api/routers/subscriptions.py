"""`/deployments/{id}/webhooks`: who is told of a deployment's events. Organisations' job webhooks are `webhooks.py`."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from sqlmodel import Session

from api.deps import CallerArg, Deps, DepsArg
from api.schemas.subscriptions import (
    NewSubscription,
    SubscriptionChange,
    SubscriptionCreate,
    SubscriptionDeliveries,
    SubscriptionList,
    SubscriptionView,
    TestDelivery,
    subscription_view,
)
from api.schemas.webhooks import NewSecret, delivery_detail
from engine.model.access import Principal
from engine.model.errors import NotFound
from engine.store import audit, subscriptions, webhooks
from engine.store.deployments import owned
from engine.store.webhook_tables import SubscriptionRow
from engine.webhooks.schedule import DeliveryState
from engine.webhooks.subscribers import Subscriber

router = APIRouter(prefix="/deployments/{deployment_id}/webhooks", tags=["webhooks"])


@router.post("", status_code=201, summary="Subscribe to events; the answer is the only place that shows the secret")
def create_subscription(
    deployment_id: str, body: SubscriptionCreate, caller: CallerArg, deps: DepsArg
) -> NewSubscription:
    now = deps.clock.now()
    with deps.database.write() as session:
        deployment = owned(session, deployment_id, caller.org_id)
        row, secret = _subscriber(deps).subscribe(
            session, deployment, url=body.url, events=body.events, subscription_id=deps.new_id("whs"),
            created_by=caller.actor, now=now,
        )  # fmt: skip
        _note(session, deps, caller, "subscribed", row)
        return NewSubscription(**subscription_view(row).model_dump(), secret=secret)


@router.get("", summary="Who is told of this deployment's events")
def list_subscriptions(deployment_id: str, caller: CallerArg, deps: DepsArg) -> SubscriptionList:
    with deps.database.read() as session:
        owned(session, deployment_id, caller.org_id)
        rows = subscriptions.of_deployment(session, deployment_id)
    return SubscriptionList(data=[subscription_view(row) for row in rows])


@router.get("/{webhook_id}", summary="Get a subscription")
def get_subscription(deployment_id: str, webhook_id: str, caller: CallerArg, deps: DepsArg) -> SubscriptionView:
    with deps.database.read() as session:
        return subscription_view(_one(session, deployment_id, webhook_id, caller))


@router.patch("/{webhook_id}", summary="Change where messages go, or which")
def patch_subscription(
    deployment_id: str, webhook_id: str, body: SubscriptionChange, caller: CallerArg, deps: DepsArg
) -> SubscriptionView:
    with deps.database.write() as session:
        row = _one(session, deployment_id, webhook_id, caller, lock=True)
        _subscriber(deps).change(session, row, body.url, body.events)
        _note(session, deps, caller, "changed", row)
        return subscription_view(row)


@router.delete("/{webhook_id}", status_code=204, summary="Unsubscribe; what is still to be sent is given up")
def delete_subscription(deployment_id: str, webhook_id: str, caller: CallerArg, deps: DepsArg) -> None:
    with deps.database.write() as session:
        row = _one(session, deployment_id, webhook_id, caller, lock=True)
        _subscriber(deps).end(session, row, deps.clock.now())
        _note(session, deps, caller, "unsubscribed", row)


@router.post("/{webhook_id}/test", status_code=202, summary="Send a `ping`")
def test_subscription(deployment_id: str, webhook_id: str, caller: CallerArg, deps: DepsArg) -> TestDelivery:
    with deps.database.write() as session:
        row = _one(session, deployment_id, webhook_id, caller, lock=True)
        return TestDelivery(delivery_id=_subscriber(deps).ping(session, row, deps.clock.now()))


@router.post("/{webhook_id}/secret/rotate", summary="Make a new signing secret; it is shown this once")
def rotate_subscription_secret(deployment_id: str, webhook_id: str, caller: CallerArg, deps: DepsArg) -> NewSecret:
    """For 24 hours `webhook-signature` holds a signature with the former one too; `X-Stackyard-Signature` is made with
    the new one at once.
    """
    now = deps.clock.now()
    with deps.database.write() as session:
        row = _one(session, deployment_id, webhook_id, caller, lock=True)
        secret = _subscriber(deps).rotate(session, row, now)
        _note(session, deps, caller, "secret_rotated", row)
        return NewSecret(secret=secret, created_at=now, previous_until=row.previous_until)


@router.get("/{webhook_id}/deliveries", summary="What was sent to a subscription, newest first, with every attempt")
def list_subscription_deliveries(
    deployment_id: str,
    webhook_id: str,
    caller: CallerArg,
    deps: DepsArg,
    state: DeliveryState | None = None,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: str | None = None,
) -> SubscriptionDeliveries:
    """`POST /v1/webhooks/deliveries/{id}/replay` sends one of them again."""
    with deps.database.read() as session:
        _one(session, deployment_id, webhook_id, caller)
        rows = webhooks.page(
            session, caller.org_id, subscription_id=webhook_id, state=state.value if state else None, after=after,
            limit=limit + 1,
        )  # fmt: skip
        logs = webhooks.attempts_of_all(session, [row.id for row in rows[:limit]])
    return SubscriptionDeliveries(
        data=[delivery_detail(row, logs[row.id]) for row in rows[:limit]], has_more=len(rows) > limit
    )


def _subscriber(deps: Deps) -> Subscriber:
    return Subscriber(deps.sealer, deps.webhook_rule.check_url)


def _one(
    session: Session, deployment_id: str, webhook_id: str, caller: Principal, *, lock: bool = False
) -> SubscriptionRow:
    owned(session, deployment_id, caller.org_id)
    row = subscriptions.get(session, webhook_id, deployment_id=deployment_id, lock=lock)
    if row is None:
        raise NotFound(f"no webhook {webhook_id} of deployment {deployment_id}")
    return row


def _note(session: Session, deps: Deps, caller: Principal, deed: str, row: SubscriptionRow) -> None:
    audit.record(
        session, at=deps.clock.now(), actor=caller.actor, action=f"webhook.{deed}", subject=row.id, org_id=row.org_id,
        details={"deployment_id": row.deployment_id, "url": row.url_shown, "events": row.events},
    )  # fmt: skip
