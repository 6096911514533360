"""Signing secrets of organisations and subscriptions: made when needed, shown once, replaced with an overlap."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlmodel import Session

from engine.store import webhooks
from engine.store.sealing import Sealer
from engine.store.webhook_tables import SubscriptionRow, WebhookSecretRow
from engine.webhooks.signature import new_secret

OVERLAP = timedelta(hours=24)
"""How long messages are signed with the former secret too, so that receivers can change over."""


def keys_of(session: Session, sealer: Sealer, org_id: str, now: datetime) -> list[str]:
    """What an organisation's messages are signed with now, the newest first; the first one is made here."""
    row = webhooks.secret_of(session, org_id) or webhooks.locked_secret(session, org_id)
    if row is None:
        sealed = sealer.seal(new_secret())
        row = webhooks.put_secret(session, WebhookSecretRow(org_id=org_id, secret_sealed=sealed, created_at=now))
    return held_by(row, sealer, now)


def held_by(row: WebhookSecretRow | SubscriptionRow, sealer: Sealer, now: datetime) -> list[str]:
    """What signs now for whom the row is, the newest first."""
    keys = [sealer.open(row.secret_sealed)]
    if row.previous_sealed and row.previous_until is not None and now < row.previous_until:
        keys.append(sealer.open(row.previous_sealed))
    return keys


def rotate(session: Session, sealer: Sealer, org_id: str, now: datetime) -> str:
    """Make a new secret and return it, this once; the former one signs beside it for `OVERLAP`."""
    row = webhooks.locked_secret(session, org_id) or WebhookSecretRow(org_id=org_id, secret_sealed="", created_at=now)
    secret = replace(row, sealer, now)
    row.created_at = now
    webhooks.put_secret(session, row)
    return secret


def replace(row: WebhookSecretRow | SubscriptionRow, sealer: Sealer, now: datetime) -> str:
    """Give the row a new secret and return it, this once; its former one signs beside it for `OVERLAP`."""
    secret = new_secret()
    if row.secret_sealed:
        row.previous_sealed, row.previous_until = row.secret_sealed, now + OVERLAP
    row.secret_sealed = sealer.seal(secret)
    return secret
