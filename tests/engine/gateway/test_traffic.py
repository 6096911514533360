"""What requests leave behind: how many there are now, and what each minute came to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy.exc import OperationalError
from sqlmodel import Session, select

from engine.gateway.traffic import Traffic
from engine.model.latency import quantile
from engine.store import traffic as stored
from engine.store.database import Database
from engine.store.traffic import Minute
from engine.store.traffic_tables import MinuteRow, TrafficRow
from tests.fakes.clock import START, FakeClock

ANSWER = b'{"usage": {"prompt_tokens": 3, "completion_tokens": 4}}'


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def traffic(store: Database, clock: FakeClock) -> Traffic:
    return Traffic(store, clock, "gateway:1")


def now_of(database: Database) -> TrafficRow:
    with database.read() as session:
        return session.get_one(TrafficRow, ("dep_1", "gateway:1"))


def minutes_of(database: Database) -> list[MinuteRow]:
    with database.read() as session:
        return list(stored.window(session, "dep_1", START - timedelta(hours=1), START + timedelta(hours=1)))


async def test_request_shows_while_it_waits_and_runs(traffic: Traffic, clock: FakeClock, store: Database) -> None:
    visit = traffic.visit("dep_1")
    visit.waits()
    await traffic.write(minutes=False)
    row = now_of(store)
    assert (row.in_flight, row.waiting, row.last_request_at) == (0, 1, START)
    clock.advance(30)
    visit.runs()
    await traffic.write(minutes=False)
    row = now_of(store)
    assert (row.in_flight, row.waiting, row.last_request_at) == (1, 0, clock.now())
    assert traffic.totals() == (1, 0)
    clock.advance(5)
    await traffic.write(minutes=False)
    assert now_of(store).updated_at == clock.now() - timedelta(seconds=5)  # nothing to say yet
    clock.advance(5)
    await traffic.write(minutes=False)
    assert now_of(store).updated_at == now_of(store).last_request_at == clock.now()
    visit.ends(200)
    await traffic.write()
    assert (now_of(store).in_flight, traffic.totals()) == (0, (0, 0))


async def test_minutes_add_up(traffic: Traffic, clock: FakeClock, store: Database) -> None:
    for _ in range(2):
        for status, failed, refused in (
            (200, False, False),
            (500, False, False),
            (200, True, False),
            (429, False, True),
        ):
            visit = traffic.visit("dep_1")
            if not refused:
                visit.runs()
                visit.begins(status, b"application/json")
                clock.advance(0.1)
                visit.passes(ANSWER)
            visit.ends(status, failed=failed, refused=refused)
        await traffic.write()
    (row,) = minutes_of(store)
    assert (row.minute, row.requests, row.errors, row.refused) == (START, 8, 4, 2)
    assert (row.prompt_tokens, row.completion_tokens) == (12, 16)
    assert row.busy_ms == pytest.approx(600, abs=2) and row.in_flight_peak == 1
    assert row.ttft == row.inter_token == {}, "a whole answer does not show when its first token was there"
    assert quantile(row.duration, 0.9) == pytest.approx(100, rel=0.08) and sum(row.duration.values()) == 8


async def test_stream_leaves_its_first_token_and_the_gaps(traffic: Traffic, clock: FakeClock, store: Database) -> None:
    visit = traffic.visit("dep_1")
    visit.waits()
    clock.advance(100)
    visit.woke()
    visit.runs()
    visit.begins(200, b"text/event-stream; charset=utf-8")
    clock.advance(0.5)
    for _ in range(11):
        visit.passes(b"data: {}\n\n")
        clock.advance(0.02)
    visit.ends(200)
    await traffic.write()
    row = next(row for row in minutes_of(store) if row.requests)
    assert quantile(row.ttft, 0.5) == pytest.approx(500, rel=0.08)
    assert quantile(row.inter_token, 0.5) == pytest.approx(20, rel=0.08) and sum(row.inter_token.values()) == 10
    assert row.completion_tokens == 11 and row.waiting_peak == 0


async def test_busy_time_belongs_to_the_minute_it_passed_in(
    traffic: Traffic, clock: FakeClock, store: Database
) -> None:
    clock.advance(50)
    visits = [traffic.visit("dep_1"), traffic.visit("dep_1")]
    for visit in visits:
        visit.runs()
    clock.advance(5)
    await traffic.write()
    clock.advance(20)
    visits[0].ends(200)
    clock.advance(5)
    visits[1].ends(200)
    await traffic.write()
    first, second = minutes_of(store)
    assert (first.busy_ms, second.busy_ms) == (10_000, 20_000)
    assert (first.requests, second.requests, second.in_flight_peak) == (0, 2, 2)


async def test_what_the_store_does_not_take_is_kept(clock: FakeClock, store: Database) -> None:
    dead = Database("sqlite:////no/such/folder/db")
    traffic = Traffic(dead, clock, "gateway:1")
    traffic.visit("dep_1").ends(200)
    await traffic.write()
    traffic._database = store
    await traffic.write()
    assert minutes_of(store)[0].requests == 1 and now_of(store).last_request_at == START


async def test_what_a_store_took_before_it_failed_is_not_counted_twice(
    clock: FakeClock, store: Database, traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    def once(session: Session, minutes: Sequence[Minute]) -> None:
        monkeypatch.setattr(stored, "add_minutes", fails)
        add(session, minutes)

    def fails(session: Session, minutes: Sequence[Minute]) -> None:
        raise OperationalError("", {}, OSError("the disk is full"))

    add = stored.add_minutes
    monkeypatch.setattr("engine.gateway.traffic._MINUTES_AT_ONCE", 1)
    monkeypatch.setattr(stored, "add_minutes", once)
    for deployment_id in ("dep_1", "dep_2"):
        traffic.visit(deployment_id).ends(200)
    await traffic.write()
    monkeypatch.setattr(stored, "add_minutes", add)
    await traffic.write()
    with store.read() as session:
        assert [row.requests for row in session.exec(select(MinuteRow))] == [1, 1]


def test_requests_through_the_gateway_are_counted(yard: Any, new_worker: Any) -> None:
    worker = new_worker()
    dep = yard.add_deployment(worker)
    body = {"model": "m", "messages": []}
    with httpx.Client(headers=yard.headers, timeout=60) as client:
        assert client.post(yard.chat_url(dep), json=body).status_code == 200
        assert client.post(yard.chat_url(dep), json={**body, "stream": True}).status_code == 200
        assert client.get(yard.chat_url(dep).replace("chat/completions", "models")).status_code == 200
    yard.stop()
    with yard.database.read() as session:
        rows = stored.window(session, dep, yard.clock.now() - timedelta(hours=1), yard.clock.now())
        assert [sum(getattr(r, n) for r in rows) for n in ("requests", "errors", "completion_tokens")] == [3, 0, 10]
        assert sum(sum(row.ttft.values()) for row in rows) == 1
        left = session.get_one(TrafficRow, (dep, "gateway:test"))
    assert (left.in_flight, left.waiting) == (0, 0)
