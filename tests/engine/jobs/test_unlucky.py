"""Moments in which a job could get lost: each of them leaves it to be done."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from http.client import HTTPConnection
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from engine.jobs import leading
from engine.jobs.service import JobService
from engine.jobs.writer import End, Operation
from engine.model import ids
from engine.model.errors import Unavailable
from engine.model.handler import WorkerPhase
from engine.model.worker_token import worker_token
from engine.store import handlers, jobs
from engine.store.handler_tables import WorkerActivityRow
from tests.fakes.handler_server import HandlerServer, Reply, echo
from tests.fakes.job_yard import SECONDS, Yard


def test_a_key_that_comes_again_does_not_take_the_waiting_job_away(yard: Yard, server: HandlerServer) -> None:
    handler_id = yard.add_handler()
    with yard.client() as client:
        first, again = (
            client.post("/v1/gpu/run/echo", json={"input": 1}, headers={"Idempotency-Key": "k"}).json()["job_id"]
            for _ in range(2)
        )
    assert first == again
    yard.change(handler_id, workers=yard.workers(server))
    assert yard.ended(first)["output"] == {"echo": 1}


def test_a_refused_write_takes_the_lease_and_all_jobs_anew(yard: Yard, server: HandlerServer) -> None:
    assert yard.service is not None
    held = yard.service.dispatcher.held
    yard.until(lambda: held.lease)

    def refused(body: dict[str, Any]) -> Reply:
        server.answer = echo
        held.is_lost = True  # as when it was renewed too late for the end of this job
        return echo(body)

    server.answer = refused
    yard.add_handler(server)
    job = yard.ended(yard.run(job_input=1))
    assert (job["status"], job["attempts"]) == ("succeeded", 2)


def test_a_draining_worker_keeps_its_job_when_the_lease_is_taken_anew(yard: Yard) -> None:
    assert yard.service is not None
    held = yard.service.dispatcher.held
    handler_id = yard.add_handler("http://127.0.0.1:9")
    job_id = yard.run(job_input=1)

    def seen() -> WorkerActivityRow:
        with yard.database.read() as session:
            rows = handlers.activity(session, handler_id)
        return rows.get("w0") or WorkerActivityRow(handler_id=handler_id, worker="w0")

    with yard.client({"Authorization": worker_token("token", handler_id, "w0")}) as worker:
        yard.until(lambda: worker.get(f"/v2/{handler_id}/job-take/w0").status_code == 200)
        token = held.token
        yard.change(handler_id, workers=yard.workers("http://127.0.0.1:9", phase=WorkerPhase.DRAINING))
        entry = yard.service.dispatcher.roster.get(handler_id)
        assert entry is not None
        yard.until(lambda: entry.workers["w0"].is_going)
        held.is_lost = True
        yard.until(lambda: held.token not in (None, token))
        yard.until(lambda: entry.workers["w0"].cards and not entry.workers["w0"].is_dirty and seen().in_flight == 1)
        assert seen().drained_at is None
        assert worker.post(f"/v2/{handler_id}/job-done/w0/{job_id}", json={"output": 2}).status_code == 200
        assert yard.ended(job_id)["output"] == 2
        yard.until(lambda: seen().drained_at)


def test_a_worker_that_leaves_before_it_is_answered_has_brought_its_result(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert yard.service is not None
    writer, came, left = yard.service.writer, threading.Event(), threading.Event()
    write = writer._commit

    def slow(operations: Sequence[Operation]) -> list[Any]:
        if any(isinstance(operation, End) for operation in operations) and not left.is_set():
            came.set()
            left.wait(SECONDS)
            return [Unavailable("not now") for _ in operations]
        return write(operations)

    monkeypatch.setattr(writer, "_commit", slow)
    handler_id = yard.add_handler("http://127.0.0.1:9")
    job_id = yard.run(job_input=1)
    with yard.client({"Authorization": worker_token("token", handler_id, "w0")}) as worker:
        yard.until(lambda: worker.get(f"/v2/{handler_id}/job-take/w0").status_code == 200)
        leaving = HTTPConnection(yard.url.removeprefix("http://"))
        done = f"/v2/{handler_id}/job-done/w0/{job_id}"
        leaving.request("POST", done, b'{"output": 2}', dict(worker.headers) | {"Content-Type": "application/json"})
        assert came.wait(SECONDS)
        leaving.close()
    left.set()
    assert yard.ended(job_id)["output"] == 2


def test_an_input_that_cannot_be_read_at_once_is_read_later(
    yard: Yard, server: HandlerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert yard.service is not None
    dispatcher, failures = yard.service.dispatcher, [OperationalError("", {}, Exception("gone"))]
    read = dispatcher.read_content

    def unlucky(job_id: str, part: str) -> bytes | None:
        if failures:
            raise failures.pop()
        return read(job_id, part)

    monkeypatch.setattr(dispatcher, "read_content", unlucky)
    handler_id = yard.add_handler()
    job_id = yard.run(job_input="x" * 20_000)
    yard.change(handler_id, workers=yard.workers(server))
    assert yard.ended(job_id)["attempts"] == 1 and not failures


def test_open_jobs_that_nobody_here_knows_are_found_again(
    yard: Yard, server: HandlerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leading, "RELOAD_SECONDS", 0.1)
    monkeypatch.setattr(leading, "SWEEP_SECONDS", 0.1)
    handler_id, gone = yard.add_handler(server), yard.add_handler(slug="gone")
    yard.change(gone, deleted_at=yard.clock.now(), phase="inactive")
    wanted = {
        "job_waits": {"handler_id": handler_id, "state": "queued", "attempts": 0},
        "job_runs": {"handler_id": handler_id, "state": "running", "attempts": 1, "worker": "w0", "protocol": "http"},
        "job_gone": {"handler_id": gone, "state": "running", "attempts": 1, "worker": "w0", "protocol": "http"},
    }
    done = yard.ended(yard.run(job_input=0))["job_id"]
    with yard.database.write() as session:
        like = jobs.get(session, done)
        assert like is not None
        empty = {"finished_at": None, "execution_ms": None, "cost_usd": None}
        rows = [like.model_dump() | empty | {"id": name} | values for name, values in wanted.items()]
        jobs.add(
            session,
            rows,
            [{"job_id": name, "part": "input", "sealed": yard.sealer.seal_bytes(b"1")} for name in wanted],
        )
    ended = {name: yard.until(lambda name=name: (r := yard.row(name)).finished_at and r) for name in wanted}
    assert {name: (row.state, row.attempts) for name, row in ended.items()} == {
        "job_waits": ("succeeded", 1), "job_runs": ("succeeded", 2), "job_gone": ("cancelled", 1),
    }  # fmt: skip


async def test_a_deployment_made_while_all_are_read_is_not_forgotten(empty_yard: Yard) -> None:
    """The older look at the store came back last, when the lease was taken: it knew nothing of the deployment."""
    service = JobService(empty_yard.database, empty_yard.sealer, empty_yard.clock, ids.new_id, "jobs_1")
    leader, read = service.leader, threading.Event()
    known, look = threading.Event(), service.leader._read_all

    def slowly() -> Any:
        found = look()
        read.set()
        assert known.wait(SECONDS)
        return found

    await leader.load()
    leader._read_all = slowly  # type: ignore[method-assign]
    taking = asyncio.create_task(leader.load())
    assert await asyncio.to_thread(read.wait, SECONDS)
    handler_id = empty_yard.add_handler()
    polling = asyncio.create_task(leader._poll())
    await asyncio.wait({polling}, timeout=0.2)
    known.set()
    await asyncio.gather(taking, polling)
    assert service.dispatcher.roster.get(handler_id) is not None
