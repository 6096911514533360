"""Messages are rows, written in the transaction of what they tell: sent if and only if it happened.

`enqueue` is called by whoever has news; `DeliveryLoop` sends, in any number of processes at the same time.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session

from engine.model import ids
from engine.model.clock import Clock
from engine.model.errors import Conflict, NotFound
from engine.store import subscriptions, webhooks
from engine.store.database import Database
from engine.store.sealing import CannotOpen, Sealer
from engine.store.webhook_tables import DeliveryAttemptRow, DeliveryRow
from engine.webhooks import signature, signing
from engine.webhooks.address import url_shown
from engine.webhooks.schedule import DeliveryState, Outcome, Schedule, judge
from engine.webhooks.sender import Message, WebhookSender, encode

PERIOD_SECONDS = 0.5
HOLD = timedelta(seconds=60)
"""An attempt ends long before; one whose process died is made again after it."""

MOST_AT_ONCE = 64
MOST_PER_HOST = 8
"""A slow receiver keeps this many attempts busy, not all of them."""

UNSUBSCRIBED = "its subscription was deleted"

MOST_PER_ORG = 16
"""Nor do the slow receivers of one organisation, by however many names."""

_log = structlog.get_logger("webhooks")


def enqueue(
    session: Session,
    sealer: Sealer,
    *,
    org_id: str,
    event: str,
    subject_id: str,
    url: str,
    payload: Mapping[str, Any] | bytes,
    schedule: Schedule,
    idempotency_key: str,
    now: datetime,
    ordering_key: str | None = None,
    secret_sealed: str = "",
    subscription_id: str | None = None,
) -> str:
    """Write a message in the caller's transaction; returns its id. The URL was checked when it was given.

    Args:
        payload: the message, or its JSON text.
        idempotency_key: names the news forever: told twice, it is sent once (`job:job_x:succeeded`).
        ordering_key: messages with the same one arrive in this order, each after the one before it ended.
        secret_sealed: signs this one instead of the organisation's secret.
        subscription_id: whose secrets sign it, those of the moment it is sent.
    """
    body = payload if isinstance(payload, bytes) else encode(payload)
    row = DeliveryRow(
        id=ids.new_id("whd"), org_id=org_id, event=event, subject_id=subject_id, subscription_id=subscription_id,
        url_sealed=sealer.seal(url), url_shown=url_shown(url), payload_sealed=sealer.seal(body.decode()),
        secret_sealed=secret_sealed, schedule=schedule.value, ordering_key=ordering_key,
        idempotency_key=idempotency_key, next_attempt_at=now, created_at=now,
    )  # fmt: skip
    return webhooks.insert_once(session, row).id


def replay(session: Session, delivery: DeliveryRow, now: datetime) -> None:
    """Send a delivery once more, with its id, so that receivers know it again; a subscription's to where it is now.

    Raises:
        Conflict: it is still being sent, or its subscription was deleted.
    """
    if delivery.state == DeliveryState.PENDING:
        raise Conflict(f"delivery {delivery.id} is still being sent; its next attempt stands in `next_attempt_at`")
    webhooks.send_again(session, delivery.id, now)
    if delivery.subscription_id is not None:
        row = subscriptions.by_id(session, delivery.subscription_id, lock=True)
        if row is None:
            raise Conflict(f"delivery {delivery.id} cannot be sent again: {UNSUBSCRIBED}")
        webhooks.redirect(session, row.id, row.url_sealed, row.url_shown)


@dataclass
class DeliveryLoop:
    """Sends what is due. A message is sent at least once; receivers tell repetitions by `webhook-id`."""

    database: Database
    sealer: Sealer
    sender: WebhookSender
    clock: Clock
    _running: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _busy: Counter[str] = field(default_factory=Counter)

    async def run(self) -> None:
        """Send, for ever. Cancelled, it leaves open attempts to whoever runs after `HOLD`."""
        try:
            while True:
                await self.round()
                await self.clock.sleep(PERIOD_SECONDS)
        finally:
            await self._stop()

    async def round(self) -> int:
        """Begin an attempt at everything that is due and has room; returns how many began."""
        try:
            rows = await asyncio.to_thread(self._due)
        except SQLAlchemyError as err:
            _log.warning("webhooks wait: the database does not answer", error=str(err))
            return 0
        began = 0
        for row in rows:
            host = urlsplit(row.url_shown).netloc
            most = ((f"org {row.org_id}", MOST_PER_ORG), (host, MOST_PER_HOST))
            if row.id in self._running or len(self._running) >= MOST_AT_ONCE:
                continue
            if any(self._busy[name] >= allowed for name, allowed in most):
                continue
            names = [name for name, _ in most]
            self._busy.update(names)
            self._running[row.id] = asyncio.create_task(self._attempt_and_forget(row, names))
            began += 1
        return began

    async def settled(self) -> None:
        """Wait until no attempt is open."""
        while self._running:
            await asyncio.wait(list(self._running.values()))

    def _due(self) -> Sequence[DeliveryRow]:
        with self.database.read() as session:
            return webhooks.due(session, self.clock.now(), limit=4 * MOST_AT_ONCE, each=4 * MOST_PER_ORG)

    async def _attempt_and_forget(self, row: DeliveryRow, names: Sequence[str]) -> None:
        try:
            await self._attempt(row)
        except SQLAlchemyError as err:
            _log.warning("a webhook's attempt was not written down", delivery=row.id, error=str(err))
        finally:
            self._running.pop(row.id, None)
            self._busy.subtract(names)
            self._busy += Counter()  # without those that are at nothing

    async def _attempt(self, row: DeliveryRow) -> None:
        number = row.attempts + 1
        began = self.clock.monotonic()
        at = self.clock.now()
        try:
            message = await asyncio.to_thread(self._claim, row, at)
        except (CannotOpen, NotFound) as err:
            message, outcome = None, Outcome(None, err.message, is_final=True)
        else:
            if message is None:
                return
            outcome = await self.sender.send(message)
        duration_ms = int((self.clock.monotonic() - began) * 1000)
        attempt = DeliveryAttemptRow(
            delivery_id=row.id, number=number, at=at, duration_ms=duration_ms, status=outcome.status,
            error=outcome.error, answer=outcome.answer.replace("\x00", ""),
        )  # fmt: skip
        await asyncio.to_thread(self._finish, row, attempt, outcome)

    def _claim(self, row: DeliveryRow, now: datetime) -> Message | None:
        """The signed message of an attempt; None when another process makes it.

        Raises:
            CannotOpen: it was sealed with another key; the attempt is counted all the same.
            NotFound: its subscription was deleted at this moment.
        """
        with self.database.write() as session:
            if not webhooks.claim(session, row.id, row.attempts, now, HOLD):
                return None
        with self.database.write() as session:
            payload = webhooks.payload_of(session, row.id)
            keys = self._keys(session, row, now)
        body = self.sealer.open(payload).encode()
        url = self.sealer.open(row.url_sealed)
        if row.schedule == Schedule.JOB:
            url = signature.with_secret(url, keys[0], row.subject_id)
        return Message(url, body, signature.headers(keys, row.id, now, body))

    def _keys(self, session: Session, row: DeliveryRow, now: datetime) -> list[str]:
        if row.subscription_id is not None:
            subscription = subscriptions.by_id(session, row.subscription_id)
            if subscription is None:
                raise NotFound(UNSUBSCRIBED)
            return signing.held_by(subscription, self.sealer, now)
        if row.secret_sealed:
            return [self.sealer.open(row.secret_sealed)]
        return signing.keys_of(session, self.sealer, row.org_id, now)

    def _finish(self, row: DeliveryRow, attempt: DeliveryAttemptRow, outcome: Outcome) -> None:
        now = self.clock.now()
        verdict = judge(outcome, Schedule(row.schedule), attempt.number, now, jitter=ids.jitter())
        with self.database.write() as session:
            webhooks.finish_attempt(session, attempt, state=verdict.state.value, again_at=verdict.again_at, now=now)
        if verdict.state is not DeliveryState.DELIVERED:
            _log.info(
                "a webhook was not taken", delivery=row.id, attempt=attempt.number, state=verdict.state.value,
                error=outcome.error,
            )  # fmt: skip

    async def _stop(self) -> None:
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
