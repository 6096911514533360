"""Who subscribed to a deployment's events: made, changed, tried, given another secret, ended. Sends nothing itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlmodel import Session

from engine.model import ids
from engine.model.errors import Conflict, InvalidSpec
from engine.store import subscriptions, webhooks
from engine.store.sealing import Sealer
from engine.store.tables import DeploymentRow
from engine.store.webhook_tables import SubscriptionRow
from engine.webhooks import deliveries, signing
from engine.webhooks.address import url_shown
from engine.webhooks.events import SUBSCRIBABLE, Event, message
from engine.webhooks.schedule import DeliveryState, Schedule

MOST_PER_DEPLOYMENT = 20
"""Every event is written once for each: many times this many would slow down whoever has news."""


@dataclass(frozen=True)
class Subscriber:
    """Writes subscriptions.

    Attributes:
        check_url: returns an address, or refuses it (`AddressRule.check_url`).
    """

    sealer: Sealer
    check_url: Callable[[str], str]

    def subscribe(
        self, session: Session, deployment: DeploymentRow, *, url: str, events: Sequence[str], subscription_id: str,
        created_by: str, now: datetime,
    ) -> tuple[SubscriptionRow, str]:  # fmt: skip
        """A new subscription, and its secret, this once.

        Raises:
            InvalidSpec: an event that there is not, none at all, or an address that nothing is sent to.
            Conflict: the deployment is being deleted, or has as many as it may.
        """
        checked, wanted = self._checked(url), known_events(events)
        if deployment.delete_requested_at is not None:
            raise Conflict(f"deployment {deployment.id} is being torn down: it has no more news")
        if (have := subscriptions.count(session, deployment.id)) >= MOST_PER_DEPLOYMENT:
            raise Conflict(
                f"deployment {deployment.id} has {have} subscriptions, the most there may be: delete or change one",
                limit=MOST_PER_DEPLOYMENT,
            )  # fmt: skip
        row = SubscriptionRow(
            id=subscription_id, org_id=deployment.org_id, deployment_id=deployment.id,
            url_sealed=self.sealer.seal(checked), url_shown=url_shown(checked), events=wanted, secret_sealed="",
            created_by=created_by, created_at=now,
        )  # fmt: skip
        secret = signing.replace(row, self.sealer, now)
        return subscriptions.insert(session, row), secret

    def change(self, session: Session, row: SubscriptionRow, url: str | None, events: Sequence[str] | None) -> None:
        """Give it another address, to which goes also what is still to be sent, or other events from now on.

        Raises:
            InvalidSpec: as for `subscribe`.
        """
        if events is not None:
            row.events = known_events(events)
        if url is not None:
            checked = self._checked(url)
            row.url_sealed, row.url_shown = self.sealer.seal(checked), url_shown(checked)
            webhooks.redirect(session, row.id, row.url_sealed, row.url_shown)
        session.add(row)
        session.flush()

    def rotate(self, session: Session, row: SubscriptionRow, now: datetime) -> str:
        """Another secret, returned this once; for `signing.OVERLAP` the former one signs beside it."""
        secret = signing.replace(row, self.sealer, now)
        session.add(row)
        session.flush()
        return secret

    def ping(self, session: Session, row: SubscriptionRow, now: datetime) -> str:
        """Send a message that says nothing, at once and behind no other; returns the delivery's id."""
        return deliveries.enqueue(
            session, self.sealer, org_id=row.org_id, event=Event.PING.value, subject_id=row.deployment_id,
            payload=message(Event.PING, row.deployment_id, {"webhook_id": row.id}, now),
            url=self.sealer.open(row.url_sealed), schedule=Schedule.EVENT, now=now,
            idempotency_key=f"{row.id}:{ids.new_id('ping')}", subscription_id=row.id,
        )  # fmt: skip

    def end(self, session: Session, row: SubscriptionRow, now: datetime) -> None:
        """Tell it nothing more; what is still to be sent is given up."""
        subscriptions.end(session, row, now)
        webhooks.give_up(session, row.id, DeliveryState.GIVEN_UP.value, deliveries.UNSUBSCRIBED, now)

    def _checked(self, url: str) -> str:
        try:
            return self.check_url(url)
        except InvalidSpec as err:
            raise InvalidSpec(err.message, field="url") from err


def known_events(names: Sequence[str]) -> list[str]:
    """The events, each once.

    Raises:
        InvalidSpec: there is none, or one that nobody publishes; names the valid ones.
    """
    valid = [event.value for event in SUBSCRIBABLE]
    if unknown := [name for name in names if name not in valid]:
        raise InvalidSpec(f"unknown event {unknown[0]!r}; valid: {', '.join(valid)}", field="events", valid=valid)
    if not names:
        raise InvalidSpec(f"events is empty: name one or more of {', '.join(valid)}", field="events", valid=valid)
    return list(dict.fromkeys(names))
