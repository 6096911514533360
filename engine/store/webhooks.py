"""Queries about webhooks: what is to be sent, what came of it, and the secrets that sign. Sends nothing."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from sqlalchemy import and_, delete, func, or_, update
from sqlalchemy.orm import aliased, defer
from sqlmodel import Session, col, select

from engine.store.tables import OrgRow
from engine.store.webhook_tables import DeliveryAttemptRow, DeliveryRow, WebhookSecretRow

_PENDING = "pending"
_WITHOUT_PAYLOAD = defer(col(DeliveryRow.payload_sealed), raiseload=True)  # type: ignore[arg-type]
"""Payloads have megabytes: lists of them must not fill the memory."""


def secret_of(session: Session, org_id: str) -> WebhookSecretRow | None:
    return session.get(WebhookSecretRow, org_id)


def locked_secret(session: Session, org_id: str) -> WebhookSecretRow | None:
    """The row for whoever changes it; the organisation's row is locked, so that of two first secrets one is made."""
    session.exec(select(OrgRow.id).where(OrgRow.id == org_id).with_for_update()).first()
    return session.get(WebhookSecretRow, org_id, populate_existing=True)


def put_secret(session: Session, row: WebhookSecretRow) -> WebhookSecretRow:
    session.add(row)
    session.flush()
    return row


def insert_once(session: Session, row: DeliveryRow) -> DeliveryRow:
    """Keep a delivery, behind the others of its `ordering_key`; one of the same idempotency key is returned instead.

    Whoever gives an ordering key writes one at a time: its row's lock orders them.
    """
    known = session.exec(select(DeliveryRow).where(DeliveryRow.idempotency_key == row.idempotency_key)).first()
    if known is not None:
        return known
    if row.ordering_key is not None:
        last = select(func.max(DeliveryRow.sequence)).where(DeliveryRow.ordering_key == row.ordering_key)
        row.sequence = (session.exec(last).one() or 0) + 1
    session.add(row)
    session.flush()
    return row


def due(session: Session, now: datetime, *, limit: int, each: int) -> Sequence[DeliveryRow]:
    """Deliveries that may be tried now, longest due first, [n], n ≤ limit: of one ordering key only the first left.

    Their payloads are not read: `payload_of`.

    Args:
        each: of one organisation so many at most: what somebody's receivers do not take keeps nobody else waiting.
    """
    earlier = aliased(DeliveryRow)
    blocked = (
        select(earlier.id)
        .where(
            col(earlier.ordering_key) == col(DeliveryRow.ordering_key),
            col(earlier.sequence) < col(DeliveryRow.sequence),
            col(earlier.state) == _PENDING,
        )
        .exists()
    )
    at = col(DeliveryRow.next_attempt_at)
    place = func.row_number().over(partition_by=col(DeliveryRow.org_id), order_by=at)
    waiting = (
        select(DeliveryRow.id, place.label("place"))
        .where(
            col(DeliveryRow.state) == _PENDING, at <= now, or_(col(DeliveryRow.ordering_key).is_(None), ~blocked)
        )
        .subquery()
    )  # fmt: skip
    query = select(DeliveryRow).join(waiting, waiting.c.id == col(DeliveryRow.id)).where(waiting.c.place <= each)
    return session.exec(query.options(_WITHOUT_PAYLOAD).order_by(at).limit(limit)).all()


def payload_of(session: Session, delivery_id: str) -> str:
    """The sealed message; "" once it was forgotten."""
    return session.exec(select(DeliveryRow.payload_sealed).where(DeliveryRow.id == delivery_id)).one()


def claim(session: Session, delivery_id: str, attempts: int, now: datetime, hold: timedelta) -> bool:
    """Take one for an attempt; False when somebody else did. It is due again after `hold`, should its taker die."""
    guard = and_(
        col(DeliveryRow.id) == delivery_id,
        col(DeliveryRow.state) == _PENDING,
        col(DeliveryRow.attempts) == attempts,
    )
    values = {"attempts": attempts + 1, "next_attempt_at": now + hold}
    return session.connection().execute(update(DeliveryRow).where(guard).values(**values)).rowcount == 1


def finish_attempt(
    session: Session, attempt: DeliveryAttemptRow, *, state: str, again_at: datetime | None, now: datetime
) -> bool:
    """Write down what came of an attempt; the delivery moves on unless a later attempt has begun meanwhile."""
    session.merge(attempt)
    session.flush()
    guard = and_(
        col(DeliveryRow.id) == attempt.delivery_id,
        col(DeliveryRow.attempts) == attempt.number,
        col(DeliveryRow.state) == _PENDING,
    )
    values = {
        "state": state,
        "next_attempt_at": again_at,
        "finished_at": None if state == _PENDING else now,
        "last_status": attempt.status,
        "last_error": attempt.error,
    }
    return session.connection().execute(update(DeliveryRow).where(guard).values(**values)).rowcount == 1


def send_again(session: Session, delivery_id: str, now: datetime) -> None:
    """Make a delivery due at once; the attempts made so far stay in its log and in its count."""
    values = {"state": _PENDING, "next_attempt_at": now, "finished_at": None}
    session.connection().execute(update(DeliveryRow).where(col(DeliveryRow.id) == delivery_id).values(**values))


def redirect(session: Session, subscription_id: str, url_sealed: str, url_shown: str) -> None:
    """Send what is still to be sent to a subscription to its new address."""
    waiting = and_(col(DeliveryRow.subscription_id) == subscription_id, col(DeliveryRow.state) == _PENDING)
    values = {"url_sealed": url_sealed, "url_shown": url_shown}
    session.connection().execute(update(DeliveryRow).where(waiting).values(**values))


def give_up(session: Session, subscription_id: str, state: str, why: str, now: datetime) -> int:
    """End what is still to be sent to a subscription; returns how many. An attempt that is under way may yet arrive."""
    waiting = and_(col(DeliveryRow.subscription_id) == subscription_id, col(DeliveryRow.state) == _PENDING)
    values = {"state": state, "next_attempt_at": None, "finished_at": now, "last_error": why}
    return session.connection().execute(update(DeliveryRow).where(waiting).values(**values)).rowcount


def give_up_oldest(session: Session, ordering_key: str, keep: int, state: str, why: str, now: datetime) -> int:
    """End what was never tried but for the newest `keep` of an ordering key; returns how many.

    What was tried is its first, or is sent once more on request: it may end by itself.
    """
    last = session.exec(select(func.max(DeliveryRow.sequence)).where(DeliveryRow.ordering_key == ordering_key)).one()
    waiting = and_(
        col(DeliveryRow.ordering_key) == ordering_key,
        col(DeliveryRow.sequence) <= (last or 0) - keep,
        col(DeliveryRow.state) == _PENDING,
        col(DeliveryRow.attempts) == 0,
    )
    values = {"state": state, "next_attempt_at": None, "finished_at": now, "last_error": why}
    return session.connection().execute(update(DeliveryRow).where(waiting).values(**values)).rowcount


def get(session: Session, delivery_id: str, *, org_id: str) -> DeliveryRow | None:
    """One delivery of an organisation; another's looks like none."""
    row = session.get(DeliveryRow, delivery_id, populate_existing=True)
    return row if row is not None and row.org_id == org_id else None


def attempts_of(session: Session, delivery_id: str) -> Sequence[DeliveryAttemptRow]:
    """What came of each attempt, oldest first."""
    query = select(DeliveryAttemptRow).where(DeliveryAttemptRow.delivery_id == delivery_id)
    return session.exec(query.order_by(col(DeliveryAttemptRow.number))).all()


def attempts_of_all(session: Session, delivery_ids: Sequence[str]) -> dict[str, list[DeliveryAttemptRow]]:
    """Delivery → what came of each attempt, oldest first."""
    query = select(DeliveryAttemptRow).where(col(DeliveryAttemptRow.delivery_id).in_(delivery_ids))
    found: dict[str, list[DeliveryAttemptRow]] = {delivery_id: [] for delivery_id in delivery_ids}
    for row in session.exec(query.order_by(col(DeliveryAttemptRow.number))).all():
        found[row.delivery_id].append(row)
    return found


def page(
    session: Session,
    org_id: str,
    *,
    subject_id: str | None = None,
    subscription_id: str | None = None,
    state: str | None = None,
    after: str | None = None,
    limit: int = 50,
) -> Sequence[DeliveryRow]:
    """Newest first, [n], n ≤ limit; `after` is the previous page's last id."""
    query = select(DeliveryRow).options(_WITHOUT_PAYLOAD).where(DeliveryRow.org_id == org_id)
    if subject_id is not None:
        query = query.where(DeliveryRow.subject_id == subject_id)
    if subscription_id is not None:
        query = query.where(DeliveryRow.subscription_id == subscription_id)
    if state is not None:
        query = query.where(DeliveryRow.state == state)
    if after and (last := get(session, after, org_id=org_id)):
        older = col(DeliveryRow.created_at) < last.created_at
        same_time = and_(col(DeliveryRow.created_at) == last.created_at, col(DeliveryRow.id) > last.id)
        query = query.where(or_(older, same_time))
    return session.exec(query.order_by(col(DeliveryRow.created_at).desc(), col(DeliveryRow.id)).limit(limit)).all()


def prune(session: Session, before: datetime) -> int:
    """Forget what ended before then, with its attempts; returns how many."""
    old = select(DeliveryRow.id).where(col(DeliveryRow.finished_at) < before)
    session.connection().execute(delete(DeliveryAttemptRow).where(col(DeliveryAttemptRow.delivery_id).in_(old)))
    return session.connection().execute(delete(DeliveryRow).where(col(DeliveryRow.finished_at) < before)).rowcount
