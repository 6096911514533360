"""Jobs over HTTP, in and out: a gateway, a store and handlers' servers, all real."""

from __future__ import annotations

import json
import threading
from datetime import timedelta
from decimal import Decimal
from typing import Any

import httpx
from sqlalchemy import select
from sqlmodel import col

from engine.model.access import GrantRole, Permission
from engine.model.handler import WorkerPhase
from engine.model.worker_token import worker_token
from engine.store import handlers, jobs
from engine.store.handler_tables import WorkerActivityRow
from engine.store.job_tables import JobRow
from engine.store.ledger_tables import UsageRecordRow
from engine.store.tables import ChangeRow
from engine.store.webhook_tables import DeliveryRow
from tests.fakes.handler_server import HandlerServer, Reply, echo
from tests.fakes.job_yard import Yard


def test_a_job_goes_in_and_its_output_comes_out(yard: Yard, server: HandlerServer) -> None:
    handler_id = yard.add_handler(server)
    with yard.client() as client:
        answer = client.post("/v1/gpu/runsync/echo", json={"input": {"prompt": "a cat astronaut"}})
    job = answer.json()
    assert answer.status_code == 200 and job["status"] == "succeeded", job
    assert job["output"] == {"echo": {"prompt": "a cat astronaut"}}
    assert job["attempts"] == 1 and job["executionMs"] >= 0 and job["delayMs"] >= 0
    assert server.received == [{"id": job["job_id"], "input": {"prompt": "a cat astronaut"}}]
    assert server.headers[0]["authorization"] == f"Bearer {worker_token('token', handler_id, 'w0')}"
    with yard.database.read() as session:
        stored = jobs.contents(session, [job["job_id"]], "input") | jobs.contents(session, [job["job_id"]], "result")
        usage = session.execute(select(UsageRecordRow)).scalars().one()
    assert all(b"astronaut" not in sealed for sealed in stored.values())
    assert usage.source_id == f"job:{job['job_id']}:1" and usage.sku == "gpu_second:AMPERE_16"
    assert job["credits"] == float(usage.quantity * Decimal("0.01"))
    shown = yard.get(job["job_id"])
    assert {name: shown[name] for name in ("output", "credits", "status")} == {
        name: job[name] for name in ("output", "credits", "status")
    }


def test_bad_requests_say_what_to_do_and_store_nothing(yard: Yard) -> None:
    yard.add_handler()
    bad: list[tuple[int, str, dict[str, Any]]] = [
        (422, "not JSON", {"content": b"{"}),
        (422, "JSON object", {"content": b"[1]"}),
        (422, "input", {"json": {}}),
        (422, "NaN", {"content": b'{"input": NaN}'}),
        (422, "inptu", {"json": {"inptu": 1}}),
        (422, "policy.ttl", {"json": {"input": 1, "policy": {"ttl": "soon"}}}),
        (422, "executionTimeout", {"json": {"input": 1, "policy": {"executionTimeout": 1}}}),
        (413, "/v1/storage/upload", {"content": b" " * (10 * 2**20 + 1)}),
    ]
    with yard.client() as client:
        for status, word, request in bad:
            answer = client.post("/v1/gpu/run/echo", **request)
            assert answer.status_code == status and word in answer.text, answer.text
        assert client.post("/v1/gpu/run/nothing", json={"input": 1}).status_code == 404
        assert client.get("/v1/gpu/run/echo").status_code == 405
        assert client.get("/v1/gpu/jobs/job_x").status_code == 404
        assert client.get("/v1/gpu/jobs?status=done").status_code == 422
        assert client.get("/v1/gpu/jobs?cursor=%25").status_code == 422
    with yard.database.read() as session:
        assert session.execute(select(JobRow)).first() is None


def test_no_money_or_a_suspended_deployment_is_402(yard: Yard) -> None:
    handler_id = yard.add_handler()
    yard.change(handler_id, suspended_at=yard.clock.now(), suspended_reason="the balance is used up")
    with yard.client() as client:
        answer = yard.until(lambda: (a := client.post("/v1/gpu/run/echo", json={"input": 1})).status_code == 402 and a)
        assert "suspended" in answer.text
        yard.change(handler_id, suspended_at=None, suspended_reason="", phase="failed", phase_reason="no such image")
        yard.until(lambda: client.post("/v1/gpu/run/echo", json={"input": 1}).status_code == 409)
    yard.make_poor()
    yard.change(handler_id, phase="active")
    with yard.client() as client:
        answer = yard.until(lambda: (a := client.post("/v1/gpu/run/echo", json={"input": 1})).status_code == 402 and a)
        assert "balance" in answer.text


def test_an_idempotency_key_makes_one_job(yard: Yard, server: HandlerServer) -> None:
    yard.add_handler(server)
    headers = {"Idempotency-Key": "k1"}
    with yard.client() as client:
        first, again = (client.post("/v1/gpu/run/echo", json={"input": 1}, headers=headers).json() for _ in range(2))
        assert first["job_id"] == again["job_id"]
        assert client.post("/v1/gpu/run/echo", json={"input": 2}, headers=headers).status_code == 409
    assert yard.ended(first["job_id"])["output"] == {"echo": 1}


def test_what_a_worker_answers_decides_over_the_job_not_over_the_worker(yard: Yard, server: HandlerServer) -> None:
    yard.add_handler(server)
    answers: list[tuple[Reply, str, str]] = [
        ((200, b"<html>"), "bad_answer", "not JSON"),
        ((200, b'{"result": 1}'), "bad_answer", "neither"),
        ((200, b'{"output": NaN}'), "bad_answer", "NaN"),
        ((200, b'{"error": "out of memory"}'), "handler_error", "out of memory"),
        ((500, b"oh no"), "handler_error", "HTTP 500: oh no"),
    ]
    with yard.client() as client:
        for reply, reason, words in answers:
            server.answer = lambda _, reply=reply: reply
            job = client.post("/v1/gpu/runsync/echo", json={"input": 1}).json()
            assert (job["status"], job["reason"], job["attempts"]) == ("failed", reason, 1) and words in job["error"]
        server.answer = echo
        assert client.post("/v1/gpu/runsync/echo", json={"input": 1}).json()["status"] == "succeeded"


def test_a_job_whose_worker_dies_is_begun_again_and_fails_in_the_end(yard: Yard, server: HandlerServer) -> None:
    yard.add_handler(server, max_attempts=3)
    server.dies_at = 4  # two attempts: each is tried on a new connection too, as a kept one may have been stale
    job = yard.ended(yard.run(job_input="x"))
    assert job["status"] == "succeeded" and job["attempts"] == 3
    server.dies_at = 1000
    job = yard.ended(yard.run(job_input="x"))
    assert (job["status"], job["reason"], job["attempts"]) == ("failed", "worker_lost", 3), job
    assert job["credits"] is None, "what we broke is not billed"


def test_limits_of_time(yard: Yard, server: HandlerServer) -> None:
    yard.add_handler(server)
    yard.add_handler(slug="asleep")
    release = threading.Event()
    server.answer = lambda body: (200, b'{"output": 1}') if release.wait(20) else (500, b"")
    long = yard.run(policy={"executionTimeout": 200})
    waiting = yard.run("asleep", policy={"ttl": 1000})
    job = yard.ended(long)
    assert (job["status"], job["reason"]) == ("timed_out", "execution_timeout") and job["credits"] > 0
    release.set()
    job = yard.ended(waiting)
    assert (job["status"], job["reason"], job["attempts"]) == ("timed_out", "expired", 0)
    assert yard.get(long)["status"] == "timed_out", "a late result changes nothing"
    with yard.client() as client:
        again = client.post(f"/v1/gpu/jobs/{waiting}/retry").json()
        assert again["retryOf"] == waiting and again["status"] == "queued" and again["job_id"] != waiting
        assert client.post(f"/v1/gpu/jobs/{again['job_id']}/retry").status_code == 409, "it is not over"
    assert yard.ended(again["job_id"])["reason"] == "expired", "it may wait as long as the one before"


def test_cancel_purge_health_and_lists(yard: Yard, server: HandlerServer) -> None:
    yard.add_handler(server, slug="busy")
    release = threading.Event()
    server.answer = lambda body: (200, b'{"output": 1}') if release.wait(20) else (500, b"")
    running, *queued = [yard.run("busy", n) for n in range(4)]
    yard.until(lambda: yard.get(running)["status"] == "running")
    with yard.client() as client:
        waited = client.post("/v1/gpu/runsync/busy?wait=50", json={"input": 9})
        assert waited.status_code == 202 and waited.json()["status"] == "queued"
        health = client.get("/v1/gpu/busy/health").json()
        assert (health["jobs"]["inProgress"], health["jobs"]["inQueue"]) == (1, 4)
        assert client.post(f"/v1/gpu/jobs/{queued[0]}/cancel").json()["status"] == "cancelled"
        assert client.post("/v1/gpu/busy/purge-queue").json()["removed"] == 3
        assert client.post(f"/v1/gpu/jobs/{running}/cancel").json()["status"] == "cancelled"
        assert client.post(f"/v1/gpu/jobs/{running}/cancel").json()["status"] == "cancelled"
        release.set()
        first = client.get("/v1/gpu/jobs?limit=2&slug=busy&status=cancelled").json()
        rest = client.get("/v1/gpu/jobs", params={"cursor": first["nextCursor"], "limit": 10}).json()
        assert len(first["jobs"]) == 2 and len(rest["jobs"]) == 3 and rest["nextCursor"] is None
        assert "output" not in first["jobs"][0]
    assert len(server.received) == 1, "what was cancelled while it waited never reached a worker"


def test_a_draining_worker_ends_what_it_has_and_gets_nothing_new(yard: Yard, server: HandlerServer) -> None:
    handler_id = yard.add_handler(server)
    release = threading.Event()
    server.answer = lambda body: (200, b'{"output": 1}') if release.wait(20) else (500, b"")
    first = yard.run()
    assert server.began.wait(20)
    yard.change(handler_id, workers=yard.workers(server, phase=WorkerPhase.DRAINING))
    second = yard.run()

    def recorded() -> WorkerActivityRow | None:
        with yard.database.read() as session:
            return handlers.activity(session, handler_id).get("w0")

    activity = yard.until(lambda: (row := recorded()) and row.in_flight and row)
    assert activity.drained_at is None and activity.ready_at is not None and activity.boot_ms is not None
    assert yard.service is not None
    entry = yard.service.dispatcher.roster.get(handler_id)
    assert entry is not None
    yard.until(lambda: entry.workers["w0"].is_going)
    release.set()
    yard.until(lambda: (row := recorded()) and row.drained_at)
    assert yard.get(first)["status"] == "succeeded" and yard.get(second)["status"] == "queued"


def test_jobs_that_wait_wake_the_reconciler_at_once_and_go_to_the_worker_that_comes(
    yard: Yard, server: HandlerServer
) -> None:
    handler_id = yard.add_handler()
    with yard.client() as client:
        client.get("/v1/gpu/echo/health")

    def told() -> int:
        with yard.database.read() as session:
            return len(session.execute(select(ChangeRow).where(col(ChangeRow.key) == handler_id)).all())

    before = told()
    waiting = [yard.run(job_input=n) for n in range(5)]
    assert told() == before + 1, "once a second, not once a job"
    yard.change(handler_id, workers=yard.workers(server))
    assert [yard.ended(job)["output"] for job in waiting] == [{"echo": n} for n in range(5)]
    assert [body["input"] for body in server.received] == list(range(5)), "in order of arrival"


def test_the_end_tells_the_webhook_in_its_transaction(yard: Yard, server: HandlerServer) -> None:
    yard.add_handler(server)
    job_id = yard.run(job_input=1, webhook_url="https://hooks.example.com/done?token=t")
    assert yard.ended(job_id)["status"] == "succeeded"
    with yard.database.read() as session:
        delivery = session.execute(select(DeliveryRow)).scalars().one()
    payload = json.loads(yard.sealer.open(delivery.payload_sealed))
    assert delivery.subject_id == job_id and yard.sealer.open(delivery.url_sealed).endswith("?token=t")
    assert payload["job_id"] == job_id and payload["output"] == {"echo": 1} and payload["executionMs"] >= 0


def test_every_route_asks_for_a_key_and_for_its_permission(yard: Yard) -> None:
    """The access walk of the paths that are not the API's."""
    mine, other = yard.add_handler(slug="mine"), yard.add_handler(slug="other")
    job_id, foreign = yard.run("mine"), yard.run("other")
    calls = [
        ("POST", "/v1/gpu/run/{slug}", Permission.DEPLOYMENT_INVOKE),
        ("POST", "/v1/gpu/runsync/{slug}?wait=1", Permission.DEPLOYMENT_INVOKE),
        ("GET", "/v1/gpu/jobs", Permission.DEPLOYMENT_READ),
        ("GET", "/v1/gpu/jobs/{id}", Permission.DEPLOYMENT_READ),
        ("GET", "/v1/gpu/{slug}/health", Permission.DEPLOYMENT_READ),
        ("POST", "/v1/gpu/{slug}/purge-queue", Permission.DEPLOYMENT_INVOKE),
        ("POST", "/v1/gpu/jobs/{id}/cancel", Permission.DEPLOYMENT_INVOKE),
        ("GET", "/v1/gpu/jobs/{id}/stream", Permission.DEPLOYMENT_READ),
        ("POST", "/v1/gpu/jobs/{id}/retry", Permission.DEPLOYMENT_INVOKE),
    ]
    assert yard.service is not None
    known = {(r.method, r.pattern.pattern) for r in yard.service.routes if r.needs_key}
    assert len({p for _, p in known if p.startswith("/v1/gpu/")}) == len(calls), "a route has no line here"
    _, reader = yard.people.key("org_1", scopes=[Permission.DEPLOYMENT_READ])
    _, nothing = yard.people.key("org_1", scopes=[Permission.BILLING_READ])
    _, scoped = yard.people.key("org_1", granted={mine: GrantRole.ADMIN})
    assert other != mine

    def status(headers: dict[str, str], method: str, path: str, slug: str, job: str) -> int:
        with yard.client(headers) as client:
            body = {"json": {"input": 1}} if method == "POST" else {}
            return client.request(method, path.format(slug=slug, id=job), **body).status_code

    for method, path, needs in calls:
        assert status({}, method, path, "mine", job_id) == 401, path
        assert status(nothing, method, path, "mine", job_id) == 403, path
        allowed = needs is Permission.DEPLOYMENT_READ
        assert (status(reader, method, path, "mine", job_id) == 403) != allowed, path
        assert status(scoped, method, path, "mine", job_id) < 300, path
        if path != "/v1/gpu/jobs":
            assert status(scoped, method, path, "other", foreign) == 403, path
    with yard.client(scoped) as client:
        assert {j["slug"] for j in client.get("/v1/gpu/jobs").json()["jobs"]} == {"mine"}
    with httpx.Client(base_url=yard.url, headers=yard.stranger()) as client:
        assert client.get(f"/v1/gpu/jobs/{job_id}").status_code == 404
        assert client.post("/v1/gpu/run/mine", json={"input": 1}).status_code == 404


def test_contents_are_gone_at_retention_but_the_job_is_not(yard: Yard, server: HandlerServer) -> None:
    yard.add_handler(server)
    job_id = yard.run(job_input=1)
    yard.ended(job_id)
    with yard.database.write() as session:
        later = yard.clock.now() + timedelta(days=3)
        assert jobs.purge_contents(session, later, later) == 1
    job = yard.get(job_id)
    assert job["status"] == "succeeded" and job["purged"] and "output" not in job and job["credits"] is not None
