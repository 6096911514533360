"""Subscriptions: whom news reaches, in which order, signed with what, and when no more."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web

from engine.model import ids
from engine.model.clock import SystemClock
from engine.model.errors import Conflict, InvalidSpec
from engine.store import deployments, subscriptions, webhooks
from engine.store.database import Database
from engine.store.sealing import Sealer
from engine.store.webhook_tables import DeliveryRow, SubscriptionRow
from engine.webhooks import deliveries, events
from engine.webhooks.address import AddressRule
from engine.webhooks.deliveries import DeliveryLoop
from engine.webhooks.events import SUBSCRIBABLE, Event, publish
from engine.webhooks.subscribers import MOST_PER_DEPLOYMENT, Subscriber
from tests.fakes.clock import FakeClock
from tests.fakes.rows import deployment_row
from tests.fakes.webhook_receiver import Receiver


class Yard:
    """A deployment with news, and those who subscribed to it."""

    def __init__(self, database: Database, clock: FakeClock, sealer: Sealer) -> None:
        self.database, self.clock, self.sealer = database, clock, sealer
        self.subscriber = Subscriber(sealer, AddressRule.of("127.0.0.0/8").check_url)
        with database.write() as session:
            deployments.insert(session, deployment_row(clock.now(), "dep_1", org_id="org_1"))

    def subscribe(self, url: str, *events: Event) -> tuple[str, str]:
        with self.database.write() as session:
            row, secret = self.subscriber.subscribe(
                session, deployments.owned(session, "dep_1", "org_1"), url=url, events=events or SUBSCRIBABLE,
                subscription_id=ids.new_id("whs"), created_by="test", now=self.clock.now(),
            )  # fmt: skip
            return row.id, secret

    def tell(self, event: Event, key: str, **data: Any) -> int:
        with self.database.write() as session:
            return publish(
                session, self.sealer, org_id="org_1", deployment_id="dep_1", event=event, data=data, key=key,
                now=self.clock.now(),
            )  # fmt: skip

    def edit(self, subscription_id: str, deed: str, *given: Any) -> Any:
        with self.database.write() as session:
            row = subscriptions.get(session, subscription_id, deployment_id="dep_1", lock=True)
            assert row is not None
            return getattr(self.subscriber, deed)(session, row, *given)

    def sent_to(self, subscription_id: str) -> list[DeliveryRow]:
        with self.database.read() as session:
            return list(webhooks.page(session, "org_1", subscription_id=subscription_id))


@pytest.fixture
def yard(database: Database, clock: FakeClock, sealer: Sealer) -> Yard:
    return Yard(database, clock, sealer)


async def work(loop: DeliveryLoop) -> None:
    await loop.round()
    await loop.settled()


def standard(secret: str, headers: dict[str, str], body: bytes) -> str:
    """A signature as the Standard Webhooks specification words it, made without our code."""
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    digest = hmac.new(base64.b64decode(secret.removeprefix("whsec_")), signed, hashlib.sha256).digest()
    return "v1," + base64.b64encode(digest).decode()


def plain(secret: str, body: bytes) -> str:
    return "sha256=" + hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


async def test_news_reaches_those_who_asked_for_it_under_their_own_secret(
    yard: Yard, loop: DeliveryLoop, receiver: Receiver
) -> None:
    _, first = yard.subscribe(receiver.url + "/a", Event.ACTIVE, Event.SCALED)
    _, second = yard.subscribe(receiver.url + "/b", Event.ACTIVE)
    assert yard.tell(Event.ACTIVE, "1", replicas=1) == 2
    assert yard.tell(Event.ACTIVE, "1", replicas=1) == 2  # told twice: sent once
    assert yard.tell(Event.SCALED, "2") == 1
    assert yard.tell(Event.FAILED, "3") == 0
    for _ in range(3):
        await work(loop)
    got = sorted((path, json.loads(body)["type"]) for path, _, body in receiver.got)
    assert got == [("/hook/a", "deployment.active"), ("/hook/a", "deployment.scaled"), ("/hook/b", "deployment.active")]
    for path, headers, body in receiver.got:
        secret = first if path == "/hook/a" else second
        assert headers["x-stackyard-signature"] == plain(secret, body)
        assert headers["webhook-signature"] == standard(secret, headers, body)
        assert json.loads(body)["deployment_id"] == "dep_1"


async def test_standard_webhooks_library_verifies_what_a_subscriber_gets(
    yard: Yard, loop: DeliveryLoop, receiver: Receiver, clock: FakeClock
) -> None:
    library = pytest.importorskip("standardwebhooks")
    clock.advance((SystemClock().now() - clock.now()).total_seconds())  # the library reads the real time
    subscription, old = yard.subscribe(receiver.url)
    new = yard.edit(subscription, "rotate", clock.now())
    yard.tell(Event.SLA_BREACH, "1", metric="ttft")
    await work(loop)
    [(_, headers, body)] = receiver.got
    for secret in (old, new):
        assert library.Webhook(secret).verify(body, headers)["data"] == {"metric": "ttft"}
    with pytest.raises(library.WebhookVerificationError):
        library.Webhook(new).verify(body + b" ", headers)


async def test_rotation_between_news_and_its_delivery_signs_with_both(
    yard: Yard, loop: DeliveryLoop, receiver: Receiver, clock: FakeClock
) -> None:
    subscription, old = yard.subscribe(receiver.url)
    yard.tell(Event.ACTIVE, "1")
    new = yard.edit(subscription, "rotate", clock.now())
    await work(loop)
    clock.advance(timedelta(hours=24).total_seconds())
    yard.tell(Event.SCALED, "2")
    await work(loop)
    (_, during, body), (_, after, later) = receiver.got
    assert during["webhook-signature"].split() == [standard(new, during, body), standard(old, during, body)]
    assert during["x-stackyard-signature"] == plain(new, body)
    assert after["webhook-signature"] == standard(new, after, later)


async def test_deleted_subscription_gets_nothing_more(yard: Yard, loop: DeliveryLoop, receiver: Receiver) -> None:
    subscription, _ = yard.subscribe(receiver.url)
    yard.tell(Event.ACTIVE, "1")
    yard.edit(subscription, "end", yard.clock.now())
    assert yard.tell(Event.SCALED, "2") == 0
    await work(loop)
    [row] = yard.sent_to(subscription)
    assert receiver.got == [] and (row.state, row.last_error) == ("given_up", deliveries.UNSUBSCRIBED)
    with pytest.raises(Conflict, match="cannot be sent again"), yard.database.write() as session:
        deliveries.replay(session, row, yard.clock.now())
    assert yard.sent_to(subscription)[0].state == "given_up"


async def test_what_waits_goes_to_the_new_address_in_order_and_a_ping_passes_it(
    yard: Yard, loop: DeliveryLoop, receiver: Receiver, clock: FakeClock
) -> None:
    subscription, _ = yard.subscribe(receiver.url + "/old")
    yard.tell(Event.ACTIVE, "1")
    yard.tell(Event.DEGRADED, "2")
    receiver.answers = [lambda: web.Response(status=500)]
    await work(loop)
    ping = yard.edit(subscription, "ping", clock.now())
    await work(loop)
    yard.edit(subscription, "change", receiver.url + "/new?token=1", None)
    clock.advance(45)
    await work(loop)
    await work(loop)
    told = [(path, json.loads(body)["type"], headers["webhook-id"] == ping) for path, headers, body in receiver.got]
    assert told == [
        ("/hook/old", "deployment.active", False),
        ("/hook/old", "ping", True),
        ("/hook/new?token=1", "deployment.active", False),
        ("/hook/new?token=1", "deployment.degraded", False),
    ]


async def test_news_told_by_many_at_once_has_one_order(yard: Yard) -> None:
    subscription, _ = yard.subscribe("https://receiver.example/hook")
    await asyncio.gather(*(asyncio.to_thread(yard.tell, Event.SCALED, str(number)) for number in range(12)))
    assert sorted(row.sequence for row in yard.sent_to(subscription)) == list(range(1, 13))


@pytest.mark.parametrize("number", [MOST_PER_DEPLOYMENT])
def test_there_is_an_end_to_subscribing(yard: Yard, number: int) -> None:
    made = [yard.subscribe(f"https://receiver.example/{i}")[0] for i in range(number)]
    with pytest.raises(Conflict, match="the most there may be"):
        yard.subscribe("https://receiver.example/more")
    yard.edit(made[0], "end", yard.clock.now())
    yard.subscribe("https://receiver.example/more")


@pytest.mark.parametrize(
    ("url", "events", "names"),
    [
        ("https://a.example/", ["deployment.exploded"], "deployment.sla_breach"),
        ("https://a.example/", ["ping"], "unknown event 'ping'"),
        ("https://a.example/", [], "events is empty"),
        ("ftp://a.example/", ["deployment.active"], "https://host/path"),
        ("http://10.0.0.8/", ["deployment.active"], "not a public address"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_kept(yard: Yard, url: str, events: list[str], names: str) -> None:
    with yard.database.write() as session:
        with pytest.raises(InvalidSpec, match=names) as refused:
            yard.subscriber.subscribe(
                session, deployments.owned(session, "dep_1", "org_1"), url=url, events=events, subscription_id="whs_1",
                created_by="test", now=yard.clock.now(),
            )  # fmt: skip
        assert session.get(SubscriptionRow, "whs_1") is None
    assert refused.value.details["field"] in ("url", "events")


async def test_what_a_receiver_never_takes_does_not_pile_up_without_end(
    yard: Yard, loop: DeliveryLoop, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MOST_WAITING", 3)
    id, _ = yard.subscribe(receiver.url, Event.SLA_BREACH)
    receiver.answers = [lambda: web.Response(status=500)]
    yard.tell(Event.SLA_BREACH, "0")
    await work(loop)
    for number in range(1, 8):
        yard.tell(Event.SLA_BREACH, str(number))
    found = [(row.state, row.attempts) for row in reversed(yard.sent_to(id))]
    assert sorted(found) == sorted([("pending", 1), *[("given_up", 0)] * 4, *[("pending", 0)] * 3])


async def test_news_nobody_takes_is_given_up_after_five_attempts_over_ten_minutes(
    yard: Yard, loop: DeliveryLoop, receiver: Receiver, clock: FakeClock
) -> None:
    subscription, _ = yard.subscribe(receiver.url)
    yard.tell(Event.ACTIVE, "1")
    receiver.answers = [lambda: web.Response(status=500)] * 5
    began = clock.now()
    while (row := yard.sent_to(subscription)[0]).next_attempt_at is not None:
        clock.advance((row.next_attempt_at - clock.now()).total_seconds())
        await work(loop)
    assert (row.state, row.attempts, len(receiver.got)) == ("given_up", 5, 5)
    assert timedelta(minutes=10) <= clock.now() - began <= timedelta(minutes=11)
    with yard.database.write() as session:
        deliveries.replay(session, row, clock.now())
    await work(loop)
    assert yard.sent_to(subscription)[0].state == "delivered"
