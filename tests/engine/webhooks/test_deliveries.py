"""Messages that arrive: once written, signed, again until they are taken, in order, never to private places."""

from __future__ import annotations

import asyncio
import json
import socket
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from engine.model.errors import Conflict
from engine.store import orgs, webhooks
from engine.store.database import Database
from engine.store.sealing import Sealer
from engine.store.webhook_tables import DeliveryRow
from engine.webhooks import deliveries, signature, signing
from engine.webhooks.address import AddressRefused, AddressRule, CheckedResolver
from engine.webhooks.deliveries import DeliveryLoop
from engine.webhooks.schedule import Schedule
from engine.webhooks.sender import WebhookSender
from tests.fakes.clock import FakeClock
from tests.fakes.rows import org_row
from tests.fakes.webhook_receiver import Receiver, receiving

SEALER = Sealer(b"0123456789abcdef0123456789abcdef")


def enqueue(database: Database, clock: FakeClock, url: str, key: str = "job:1", **given: Any) -> str:
    values: dict[str, Any] = {
        "org_id": "org_1", "event": "job.succeeded", "subject_id": "job_1", "url": url, "payload": {"job_id": "job_1"},
        "schedule": Schedule.JOB, "idempotency_key": key, "now": clock.now(),
    }  # fmt: skip
    with database.write() as session:
        return deliveries.enqueue(session, SEALER, **(values | given))


def row(database: Database, delivery_id: str) -> DeliveryRow:
    with database.read() as session:
        found = webhooks.get(session, delivery_id, org_id="org_1")
    assert found is not None
    return found


async def work(loop: DeliveryLoop) -> int:
    began = await loop.round()
    await loop.settled()
    return began


async def test_message_arrives_signed(
    database: Database, clock: FakeClock, loop: DeliveryLoop, receiver: Receiver
) -> None:
    made = enqueue(database, clock, receiver.url + "?a=1", payload={"job_id": "job_1", "output": "ä"})
    assert await work(loop) == 1
    [(path, headers, body)] = receiver.got
    with database.write() as session:
        [secret] = signing.keys_of(session, SEALER, "org_1", clock.now())
    assert json.loads(body) == {"job_id": "job_1", "output": "ä"}
    assert path == f"/hook?a=1&secret={signature.signed_secret(secret, 'job_1')}"
    assert headers["webhook-id"] == made and headers["content-type"] == "application/json"
    expected = signature.headers([secret], made, clock.now(), body)
    assert {k: headers[k] for k in expected} == expected
    found = row(database, made)
    assert (found.state, found.attempts, found.last_status) == ("delivered", 1, 200)
    assert receiver.url in (found.url_shown, found.url_shown + "?a=1") and "a=1" not in found.url_sealed
    assert await work(loop) == 0


async def test_message_is_sent_again_until_it_is_taken(
    database: Database, clock: FakeClock, loop: DeliveryLoop, receiver: Receiver
) -> None:
    receiver.answers = [
        lambda: web.Response(status=500, text="oh"),
        lambda: web.Response(status=503, headers={"Retry-After": "90"}),
        lambda: web.Response(status=302, headers={"Location": "/elsewhere"}),
    ]
    made = enqueue(database, clock, receiver.url)
    waits = []
    while (found := row(database, made)).state == "pending":
        assert found.next_attempt_at is not None
        waits.append((found.next_attempt_at - clock.now()).total_seconds())
        clock.advance(waits[-1])
        await work(loop)
    assert waits[0] == 0 and 5 <= waits[1] <= 5.5 and waits[2] == 90 and 120 <= waits[3] <= 132
    assert len({headers["webhook-id"] for _, headers, _ in receiver.got}) == 1 and len(receiver.got) == 4
    with database.read() as session:
        log = webhooks.attempts_of(session, made)
    assert [(a.number, a.status, a.error.partition(":")[0]) for a in log] == [
        (1, 500, "answered 500"), (2, 503, "answered 503"), (3, 302, "answered 302"), (4, 200, ""),
    ]  # fmt: skip
    assert [a.answer for a in log] == ["oh", "", "", "thanks"]


async def test_news_told_twice_is_sent_once(
    database: Database, clock: FakeClock, loop: DeliveryLoop, receiver: Receiver
) -> None:
    assert enqueue(database, clock, receiver.url) == enqueue(database, clock, receiver.url)
    await work(loop)
    assert len(receiver.got) == 1


async def test_news_of_a_deed_that_failed_is_not_sent(
    database: Database, clock: FakeClock, loop: DeliveryLoop, receiver: Receiver
) -> None:
    with pytest.raises(Conflict), database.write() as session:
        deliveries.enqueue(
            session, SEALER, org_id="org_1", event="x", subject_id="s", url=receiver.url, payload={},
            schedule=Schedule.EVENT, idempotency_key="k", now=clock.now(),
        )  # fmt: skip
        raise Conflict("no")
    assert await work(loop) == 0


async def test_order_is_kept_and_one_that_was_given_up_blocks_nobody(
    database: Database, clock: FakeClock, loop: DeliveryLoop, receiver: Receiver
) -> None:
    event = {"schedule": Schedule.EVENT, "ordering_key": "sub_1"}
    first = enqueue(database, clock, receiver.url, "1", payload=1, **event)
    enqueue(database, clock, receiver.url, "2", payload=2, **event)
    receiver.answers = [lambda: web.Response(status=500)]
    for _ in range(40):
        await work(loop)
        clock.advance(20)
    assert [json.loads(body) for _, _, body in receiver.got] == [1, 1, 2]
    receiver.got.clear()
    gone = enqueue(database, clock, receiver.url, "4", payload=4, **event)
    enqueue(database, clock, receiver.url, "5", payload=5, **event)
    receiver.answers = [lambda: web.Response(status=410)]
    for _ in range(3):
        await work(loop)
    assert [json.loads(body) for _, _, body in receiver.got] == [4, 5]
    assert (row(database, first).state, row(database, gone).state) == ("delivered", "given_up")


async def test_private_places_are_never_reached(database: Database, clock: FakeClock, receiver: Receiver) -> None:
    port = receiver.url.split(":")[2].split("/")[0]
    given = [receiver.url, f"http://localhost:{port}/", f"http://2130706433:{port}/", f"http://0x7f.1:{port}/"]
    made = [enqueue(database, clock, url, url) for url in given]
    async with WebhookSender(AddressRule(), clock) as sender:
        await work(DeliveryLoop(database, SEALER, sender, clock))
    assert receiver.got == []
    for delivery_id in made:
        found = row(database, delivery_id)
        assert found.last_status is None and found.last_error != "" and found.state in ("given_up", "pending")


class _Turncoat(AbstractResolver):
    """A name that is public when it is asked first, and private ever after."""

    def __init__(self) -> None:
        self.asked = 0

    async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> list[ResolveResult]:
        self.asked += 1
        address = "93.184.216.34" if self.asked == 1 else "127.0.0.1"
        return [ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)]

    async def close(self) -> None:
        pass


async def test_name_that_changes_its_mind_is_refused() -> None:
    resolver = CheckedResolver(AddressRule(), _Turncoat())
    assert [r["host"] for r in await resolver.resolve("a.example", 80)] == ["93.184.216.34"]
    with pytest.raises(AddressRefused, match="not a public address"):
        await resolver.resolve("a.example", 80)


async def test_attempt_of_a_process_that_died_is_made_again(
    database: Database, clock: FakeClock, loop: DeliveryLoop, receiver: Receiver
) -> None:
    made = enqueue(database, clock, receiver.url)
    with database.write() as session:
        assert webhooks.claim(session, made, 0, clock.now(), deliveries.HOLD)
        assert not webhooks.claim(session, made, 0, clock.now(), deliveries.HOLD)
    assert await work(loop) == 0
    clock.advance(deliveries.HOLD.total_seconds())
    assert await work(loop) == 1 and len(receiver.got) == 1


async def test_two_processes_send_once(
    database: Database, clock: FakeClock, loop: DeliveryLoop, receiver: Receiver
) -> None:
    for number in range(20):
        enqueue(database, clock, receiver.url, str(number))
    other = DeliveryLoop(database, SEALER, loop.sender, clock)
    for _ in range(10):
        await asyncio.gather(loop.round(), other.round())
        await asyncio.gather(loop.settled(), other.settled())
    assert len(receiver.got) == 20


async def test_slow_receiver_leaves_room_for_others(
    database: Database, clock: FakeClock, loop: DeliveryLoop, receiver: Receiver
) -> None:
    async with receiving() as slow:
        waiting = asyncio.Event()

        async def hang(request: web.Request) -> web.StreamResponse:
            await waiting.wait()
            return web.Response()

        slow.take = hang  # type: ignore[method-assign]
        for number in range(3 * deliveries.MOST_PER_HOST):
            enqueue(database, clock, slow.url, f"slow {number}")
        enqueue(database, clock, receiver.url, "quick")
        assert await loop.round() == deliveries.MOST_PER_HOST + 1
        await asyncio.wait_for(receiver.got_one.wait(), 20)
        waiting.set()
        await loop.settled()


async def test_replay_sends_once_more_under_the_same_id(
    database: Database, clock: FakeClock, loop: DeliveryLoop, receiver: Receiver
) -> None:
    made = enqueue(database, clock, receiver.url)
    with pytest.raises(Conflict, match="still being sent"), database.write() as session:
        deliveries.replay(session, row(database, made), clock.now())
    await work(loop)
    with database.write() as session:
        deliveries.replay(session, row(database, made), clock.now())
    await work(loop)
    assert [headers["webhook-id"] for _, headers, _ in receiver.got] == [made, made]
    assert row(database, made).attempts == 2 and row(database, made).state == "delivered"


async def test_replaced_secret_signs_beside_the_new_one_for_a_day(
    database: Database, clock: FakeClock, loop: DeliveryLoop, receiver: Receiver
) -> None:
    with database.write() as session:
        [old] = signing.keys_of(session, SEALER, "org_1", clock.now())
        new = signing.rotate(session, SEALER, "org_1", clock.now())
        assert signing.keys_of(session, SEALER, "org_1", clock.now()) == [new, old]
        assert signing.keys_of(session, SEALER, "org_1", clock.now() + timedelta(hours=24)) == [new]
    made = enqueue(database, clock, receiver.url)
    await work(loop)
    _, headers, body = receiver.got[0]
    expected = signature.headers([new, old], made, clock.now(), body)
    assert headers["webhook-signature"] == expected["webhook-signature"]


async def test_ended_deliveries_are_forgotten_with_their_log(
    database: Database, clock: FakeClock, loop: DeliveryLoop, receiver: Receiver
) -> None:
    made = enqueue(database, clock, receiver.url)
    await work(loop)
    with database.write() as session:
        assert webhooks.prune(session, clock.now()) == 0
        assert webhooks.prune(session, clock.now() + timedelta(seconds=1)) == 1
        assert webhooks.get(session, made, org_id="org_1") is None and not webhooks.attempts_of(session, made)


def test_what_one_organisation_has_due_hides_nobody_elses(database: Database, clock: FakeClock) -> None:
    with database.write() as session:
        orgs.insert(session, org_row(clock.now(), "org_2"))
    for number in range(5):
        enqueue(database, clock, f"https://h{number}.example/", f"many {number}")
    clock.advance(1)
    quick = enqueue(database, clock, "https://quick.example/", "quick", org_id="org_2")
    with database.read() as session:
        due = webhooks.due(session, clock.now(), limit=4, each=3)
    assert [row.org_id for row in due] == ["org_1"] * 3 + ["org_2"] and due[-1].id == quick
