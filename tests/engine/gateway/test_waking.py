"""Requests to sleeping deployments are held, wake them once, and end when the deployment does."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from aiohttp import web
from sqlmodel import Session

from engine.gateway.routes import Route
from engine.gateway.waiting import Patience
from engine.gateway.waking import AGAIN_SECONDS, Waker
from engine.model.deployment import Phase
from engine.model.errors import InsufficientCredit
from engine.store import deployments, traffic
from engine.store.database import Database
from engine.store.tables import DeploymentRow, OrgRow
from tests.fakes.clock import FakeClock
from tests.fakes.rows import deployment_row

BODY = {"model": "m", "messages": [{"role": "user", "content": "Explain"}]}


def asleep(yard: Any, worker: Any, **values: Any) -> str:
    """A sleeping deployment that `worker` will serve."""
    dep: str = yard.add_deployment(worker, phase="asleep", asleep_since=yard.clock.now(), **values)
    yard.change(dep, replicas=[])
    return dep


def ready(yard: Any, dep: str, worker: Any) -> None:
    yard.change(dep, worker, phase="active")


def row(yard: Any, dep: str) -> DeploymentRow:
    with yard.database.read() as session:
        found: DeploymentRow = session.get_one(DeploymentRow, dep)
        return found


def soon(condition: Callable[[], Any]) -> None:
    limit = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < limit
        threading.Event().wait(0.01)


def waiting(yard: Any, dep: str) -> int:
    with yard.database.read() as session:
        return traffic.current(session, yard.clock.now()).get(dep, traffic.Traffic()).waiting


def posting(pool: ThreadPoolExecutor, yard: Any, dep: str, **body: Any) -> Future[httpx.Response]:
    return pool.submit(httpx.post, yard.chat_url(dep), headers=yard.headers, json={**BODY, **body}, timeout=60)


def test_burst_wakes_a_deployment_once_and_is_answered_when_it_is_ready(yard: Any, new_worker: Any) -> None:
    worker = new_worker()
    dep = asleep(yard, worker)
    before = row(yard, dep)
    with ThreadPoolExecutor(8) as pool:
        answers = [posting(pool, yard, dep) for _ in range(8)]
        soon(lambda: row(yard, dep).asleep_since is None)
        soon(lambda: waiting(yard, dep) == 8)  # the autoscaler sees them
        yard.change(dep, phase="provisioning")
        assert not any(answer.done() for answer in answers)
        ready(yard, dep, worker)
        assert [answer.result().status_code for answer in answers] == [200] * 8
    after = row(yard, dep)
    assert after.generation == before.generation + 1 and after.awake_since is not None
    soon(lambda: waiting(yard, dep) == 0)


def test_stream_is_told_that_it_waits_and_then_gets_its_events(yard: Any, new_worker: Any) -> None:
    worker = new_worker()
    dep = asleep(yard, worker)
    with httpx.stream("POST", yard.chat_url(dep), headers=yard.headers, json={**BODY, "stream": True}) as answer:
        assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.iter_lines()
        assert [next(lines) for _ in range(4)] == [": waking", ""] * 2
        ready(yard, dep, worker)
        data = [line for line in lines if line.startswith("data: ")]
    assert len(data) == 6 and "Gradient" in data[0] and data[-1] == "data: [DONE]"


def test_failure_ends_the_waiting(yard: Any, new_worker: Any) -> None:
    dep = asleep(yard, new_worker())
    with ThreadPoolExecutor(1) as pool:
        held = posting(pool, yard, dep)
        soon(lambda: waiting(yard, dep) == 1)
        yard.change(dep, asleep_since=None, phase="failed", phase_reason="no GPU left")
        error = held.result().json()["error"]
    assert held.result().status_code == 409
    assert error["details"]["status"] == "failed" and "no GPU left" in error["message"]


def test_deletion_ends_a_waiting_stream_with_an_error_event(yard: Any, new_worker: Any) -> None:
    dep = asleep(yard, new_worker())
    with httpx.stream("POST", yard.chat_url(dep), headers=yard.headers, json={**BODY, "stream": True}) as answer:
        lines = answer.iter_lines()
        assert next(lines) == ": waking"
        yard.change(dep, delete_requested_at=yard.clock.now())
        rest = [line for line in lines if line and not line.startswith(":")]
    assert rest[0] == "event: error"
    assert json.loads(rest[1].removeprefix("data: "))["error"]["details"]["status"] == "teardown"


def test_suspension_ends_the_waiting(yard: Any, new_worker: Any) -> None:
    dep = asleep(yard, new_worker())
    with ThreadPoolExecutor(1) as pool:
        held = posting(pool, yard, dep)
        soon(lambda: row(yard, dep).asleep_since is None and waiting(yard, dep) == 1)
        with yard.database.write() as session:
            deployments.suspend(session, dep, "the balance is used up", yard.clock.now())
        assert held.result().status_code == 402


def test_without_money_nothing_wakes(yard: Any, new_worker: Any) -> None:
    dep = asleep(yard, new_worker(), org_id="org_2")
    with yard.database.write() as session:
        session.get_one(OrgRow, "org_2").credit_limit_microdollars = 0
    headers = {"Authorization": f"Bearer {yard.add_key('org_2')}"}
    for _ in range(2):
        answer = httpx.post(yard.chat_url(dep), headers=headers, json=BODY, timeout=60)
        assert answer.status_code == 402 and answer.json()["error"]["code"] == "insufficient_credit"
    assert row(yard, dep).asleep_since is not None


async def test_who_has_no_money_and_asks_again_and_again_costs_one_transaction_a_second(store: Database) -> None:
    clock, asked, heard = FakeClock(), list[str](), list[str]()

    def require(session: Session, row: DeploymentRow, now: datetime) -> None:
        asked.append(row.id)
        raise InsufficientCredit("nothing is left")

    async def fresh() -> None:
        raise AssertionError("nothing woke")

    with store.write() as session:
        session.add(OrgRow(id="org_1", name="one", created_at=clock.now()))
        session.flush()
        deployments.insert(session, deployment_row(clock.now(), "dep_1", asleep_since=clock.now()))
    route = Route("dep_1", "org_1", Phase.ASLEEP, "", (), "", "", asleep_since=clock.now())
    waker = Waker(store, clock, fresh, require)
    waker.refused = lambda deployment_id, _: heard.append(deployment_id)
    for _ in range(3):
        waker.wake(route)
        await asyncio.gather(*waker._tasks)
    assert (len(asked), len(heard)) == (1, 3)
    clock.advance(AGAIN_SECONDS)
    waker.wake(route)
    await asyncio.gather(*waker._tasks)
    assert len(asked) == 2


@pytest.mark.parametrize("yard", [Patience(0.3, 0.1, 0.1)], indirect=True)
def test_wake_that_takes_too_long_is_a_504_that_says_what_to_do(yard: Any, new_worker: Any) -> None:
    dep = asleep(yard, new_worker())
    answer = httpx.post(yard.chat_url(dep), headers=yard.headers, json=BODY, timeout=60)
    assert answer.status_code == 504 and answer.headers["retry-after"] == "60"
    error = answer.json()["error"]
    assert error["code"] == "wake_timeout" and "until it is active" in error["message"]
    yard.stop()
    now = yard.clock.now()
    with yard.database.read() as session:
        minutes = traffic.window(session, dep, now - timedelta(minutes=5), now)
    assert sum(minute.refused for minute in minutes) == sum(minute.requests for minute in minutes) == 1


def test_client_that_leaves_frees_its_place(yard: Any, new_worker: Any) -> None:
    dep = asleep(yard, new_worker())
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(yard.chat_url(dep), headers=yard.headers, json=BODY, timeout=1.5)
    soon(lambda: row(yard, dep).asleep_since is None)
    soon(lambda: waiting(yard, dep) == 0)


def test_replica_that_restarts_is_waited_for_a_moment(yard: Any, new_worker: Any) -> None:
    worker = new_worker()
    dep = yard.add_deployment(phase="degraded")
    started = time.monotonic()
    assert httpx.post(yard.chat_url(dep), headers=yard.headers, json=BODY, timeout=60).status_code == 503
    assert time.monotonic() - started >= 0.2
    other = yard.add_deployment(worker)
    yard.change(other, replicas=[])
    with ThreadPoolExecutor(1) as pool:
        held = posting(pool, yard, other)
        yard.change(other, worker)
        assert held.result().status_code == 200


def test_request_that_meets_a_replica_told_to_drain_is_held_not_lost(yard: Any, new_worker: Any) -> None:
    """The deployment falls asleep at the very moment: the agent refuses before the routes know."""
    worker = new_worker()
    dep = yard.add_deployment(worker)

    async def drains(request: web.Request) -> web.Response:
        if row(yard, dep).asleep_since is None and row(yard, dep).awake_since is None:
            yard.change(dep, replicas=[], phase="asleep", asleep_since=yard.clock.now())
        return web.json_response({}, status=503, headers={"X-Stackyard-Agent-Error": "draining"})

    worker.answer = drains
    with ThreadPoolExecutor(1) as pool:
        held = posting(pool, yard, dep)
        soon(lambda: row(yard, dep).awake_since is not None)
        worker.answer = None
        ready(yard, dep, worker)
        assert held.result().status_code == 200
    assert len(worker.seen) == 2


def test_request_beyond_the_concurrency_limit_waits_its_turn(yard: Any, new_worker: Any) -> None:
    worker = new_worker()
    worker.answer = worker.hang
    dep = yard.add_deployment(worker, sla={"concurrency_limit": 1})
    with ThreadPoolExecutor(2) as pool:
        answers = [posting(pool, yard, dep) for _ in range(2)]
        soon(lambda: waiting(yard, dep) == 1 and worker.seen)
        assert len(worker.seen) == 1
        worker.go_on.set()
        assert [answer.result().status_code for answer in answers] == [200, 200]


def test_gateway_that_ends_tells_those_who_wait_to_come_again(yard: Any, new_worker: Any) -> None:
    dep = asleep(yard, new_worker())
    with ThreadPoolExecutor(1) as pool:
        held = posting(pool, yard, dep)
        soon(lambda: waiting(yard, dep) == 1)
        yard.stop()
        assert held.result().status_code == 503 and held.result().headers["retry-after"] == "2"
    assert waiting(yard, dep) == 0
