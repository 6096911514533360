"""What images and clients send that mean harm: others, and the gateway, do not notice."""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections.abc import Callable

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from engine.jobs import dispatcher
from engine.jobs.http_worker import outcome_of
from engine.jobs.telling import payload_of
from engine.jobs.writer import MOST_BYTES, Accept, Ended, _fitting
from engine.model.job import MAX_OUTPUT_BYTES, JobState
from engine.model.worker_token import worker_token
from engine.store import jobs
from engine.store.webhook_tables import DeliveryRow
from tests.fakes.handler_server import HandlerServer
from tests.fakes.job_yard import Yard


def test_answers_that_mean_harm_fail_their_job_only(yard: Yard, server: HandlerServer) -> None:
    yard.add_handler(server)
    bomb = gzip.compress(b'{"output": "' + b"x" * (2 * MAX_OUTPUT_BYTES) + b'"}')
    server.answer = lambda _: (200, bomb)
    server.extra_headers = {"Content-Encoding": "gzip", "X-Concurrency": "9" * 5000}
    job = yard.ended(yard.run(job_input=1))
    assert (job["status"], job["reason"]) == ("failed", "bad_answer") and "not JSON" in job["error"]
    server.extra_headers = {}
    server.answer = lambda _: (200, b'{"output": ["\\ud800"]}')
    job = yard.ended(yard.run(job_input=1, webhook_url="https://hooks.example.com/"))
    assert job["status"] == "succeeded"
    with yard.database.read() as session:
        delivery = session.execute(select(DeliveryRow)).scalars().one()
    assert json.loads(yard.sealer.open(delivery.payload_sealed))["output"] == ["\ud800"]


@pytest.mark.parametrize("depth", range(900, 1000, 7))
def test_depth_is_an_outcome(depth: int) -> None:
    made = outcome_of(200, b'{"output":' + b"[" * depth + b"]" * depth + b"}")
    assert (made.output is None) != (made.error is None)
    told = payload_of(Ended("job_1", "org_1", "gpu", "", JobState.SUCCEEDED, made.output, made.error, 1, 1))
    assert told.startswith(b'{"job_id":"job_1"')


def test_workers_are_known_before_a_byte_of_theirs_is_read(yard: Yard) -> None:
    """Whoever has no token gets its answer while it still holds its megabytes back."""
    handler_id = yard.add_handler("")
    with socket.create_connection(("127.0.0.1", httpx.URL(yard.url).port or 0), timeout=20) as connection:
        head = f"POST /v2/{handler_id}/job-done/w0/job_1 HTTP/1.1\r\nhost: x\r\ncontent-length: 60000000\r\n\r\n"
        connection.sendall(head.encode())
        assert b" 401 " in connection.recv(100)


def test_partial_outputs_and_notes_of_progress_have_an_end(yard: Yard) -> None:
    handler_id = yard.add_handler("")
    token = worker_token("token", handler_id, "w0")
    base = f"/v2/{handler_id}"
    with yard.client({"authorization": token}) as worker:
        job_id = yard.run(job_input=1)
        assert worker.get(f"{base}/job-take/w0").json()["id"] == job_id
        chunk = {"output": "x" * (MAX_OUTPUT_BYTES // 2)}
        answers = [worker.post(f"{base}/job-stream/w0/{job_id}", json=chunk) for _ in range(3)]
        assert [a.status_code for a in answers] == [200, 413, 413], "its quotes count too"
        note = {"status": "IN_PROGRESS", "output": "x" * 2_000_000}
        assert worker.post(f"{base}/job-done/w0/{job_id}", json=note).status_code == 413
        assert worker.post(f"{base}/job-done/w0/{job_id}", content=b'{"output": Infinity}').status_code == 200
    assert "Infinity" in yard.ended(job_id)["error"]


def test_numbers_that_are_none_are_refused(yard: Yard) -> None:
    yard.add_handler("")
    with yard.client() as client:
        for path in (
            "/v1/gpu/jobs?limit=0000000000019999", "/v1/gpu/jobs?limit=" + "1" * 5000,
            "/v1/gpu/jobs?since=0001-01-01T00:00:00%2B23:59", "/v1/gpu/jobs?cursor=MDAwMS0wMS0wMSBqb2I=",
        ):  # fmt: skip
            assert client.get(path).status_code in (200, 422), path
        assert client.get("/v1/gpu/jobs?limit=0000000000019999").status_code == 422
        assert client.post("/v2/echo/runsync?wait=000001000999999", json={"input": 1}).status_code == 422


def test_long_jobs_of_one_deployment_leave_places_for_others(
    yard: Yard, new_server: Callable[[], HandlerServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "MOST_RUNNING", 1)
    slow, quick, end = new_server(), new_server(), threading.Event()
    slow.answer = lambda _: (200, b'{"output": %d}' % end.wait(20))
    yard.add_handler(slow, slug="slow", concurrency=3)
    long = [yard.run("slow") for _ in range(3)]
    assert slow.began.wait(20)
    other = yard.add_handler(slug="other")
    waiting = yard.run("other", job_input=1)
    yard.change(other, workers=yard.workers(quick))
    assert yard.ended(waiting)["status"] == "succeeded"
    end.set()
    assert [yard.ended(job)["status"] for job in long] == ["succeeded"] * 3


def test_one_transaction_holds_no_more_than_it_may() -> None:
    large, small = Accept({}, b"x" * (MOST_BYTES // 3)), Accept({}, b"1")
    assert _fitting([large] * 9) == 3 and _fitting([small] * 9) == 9
    assert _fitting([Accept({}, b"x" * (2 * MOST_BYTES)), small]) == 1, "the first one goes however large it is"


def test_a_database_that_is_away_is_said(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> None:
        raise OperationalError("select", {}, Exception("away"))

    monkeypatch.setattr(jobs, "get", away)
    with yard.client() as client:
        answer = client.get("/v1/gpu/jobs/job_1")
    assert answer.status_code == 503 and "database" in answer.json()["error"]["message"]
