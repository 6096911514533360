"""RunPod's own client with another base URL, and its words over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import runpod
from runpod.endpoint import runner

from engine.model.worker_token import worker_token
from tests.fakes.handler_server import HandlerServer
from tests.fakes.job_yard import Yard


@pytest.fixture
def endpoint(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> Iterator[runpod.Endpoint]:
    monkeypatch.setattr(runpod, "endpoint_url_base", yard.url + "/v2")
    monkeypatch.setattr(runner.time, "sleep", threading.Event().wait)
    made = runpod.Endpoint("echo", api_key=yard.headers["Authorization"].removeprefix("Bearer "))
    yield made
    made.rp_client.rp_session.close()


def test_client_submits_waits_and_reads(yard: Yard, server: HandlerServer, endpoint: runpod.Endpoint) -> None:
    yard.add_handler(server)
    assert endpoint.run_sync({"prompt": "a cat"}, timeout=20) == {"echo": {"prompt": "a cat"}}
    job = endpoint.run({"input": {"prompt": "a dog"}})
    assert job.output(timeout=20) == {"echo": {"prompt": "a dog"}} and job.status() == "COMPLETED"
    health = endpoint.health()
    assert health["jobs"]["completed"] == 2 and health["jobs"]["inQueue"] == 0


def test_client_cancels_and_purges(yard: Yard, endpoint: runpod.Endpoint) -> None:
    yard.add_handler()
    first, _second = endpoint.run({"n": 1}), endpoint.run({"n": 2})
    assert first.status() == "IN_QUEUE"
    assert first.cancel()["status"] == "CANCELLED" and first.status() == "CANCELLED"
    assert endpoint.purge_queue() == {"removed": 1, "status": "completed"}


def test_client_with_a_wrong_key_is_told(yard: Yard) -> None:
    yard.add_handler()
    endpoint = runpod.Endpoint("echo", api_key="sk_wrong")
    endpoint.rp_client.endpoint_url_base = yard.url + "/v2"
    with pytest.raises(RuntimeError, match="401 Unauthorized"):
        endpoint.run({"n": 1})
    endpoint.rp_client.rp_session.close()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"prompt": 1}, "unknown field 'prompt'"),
        ({}, 'a job needs "input"'),
        ({"input": 1, "webhook": 5}, "webhook has to be text"),
        ({"input": 1, "s3Config": {"accessId": "x"}}, "s3Config is not passed on"),
        ({"input": 1, "policy": {"ttl": -1}}, "policy.ttl has to be a number"),
        ({"input": 1, "policy": {"executionTimeout": 1}}, "policy.executionTimeout is 1 ms"),
    ],
)
def test_bodies_that_cannot_be(yard: Yard, body: dict[str, Any], says: str) -> None:
    yard.add_handler()
    with yard.client() as client:
        answer = client.post("/v2/echo/run", json=body)
    assert answer.status_code == 422 and says in answer.json()["error"]["message"]


def test_runsync_says_how_far_it_is_when_it_waited_long_enough(yard: Yard) -> None:
    yard.add_handler()
    with yard.client() as client:
        assert client.post("/v2/echo/runsync?wait=10", json={"input": 1}).status_code == 422
        answer = client.post("/v2/echo/runsync?wait=1000", json={"input": 1})
    assert answer.status_code == 200 and answer.json()["status"] == "IN_QUEUE"


def test_job_of_another_deployment_is_not_found(yard: Yard) -> None:
    yard.add_handler()
    yard.add_handler(slug="other")
    job_id = yard.run("echo", 1)
    with yard.client() as client:
        assert client.get(f"/v2/echo/status/{job_id}").json() == {"id": job_id, "status": "IN_QUEUE"}
        for verb in ("status", "stream"):
            assert client.get(f"/v2/other/{verb}/{job_id}").status_code == 404
        for verb in ("cancel", "retry"):
            assert client.post(f"/v2/other/{verb}/{job_id}").status_code == 404
        assert client.get(f"/v2/echo/status/{job_id}").json()["status"] == "IN_QUEUE"


def test_partial_outputs_are_given_once_and_retry_is_a_new_job(yard: Yard) -> None:
    """A worker that takes its jobs itself, by hand."""
    handler_id = yard.add_handler("")
    worker = {"authorization": worker_token("token", handler_id, "w0")}
    with yard.client() as client:
        yard.until(lambda: client.get(f"/v2/{handler_id}/ping/w0", headers=worker).status_code == 200)
        job_id = yard.run("echo", {"words": 2})
        taken = client.get(f"/v2/{handler_id}/job-take/w0?gpu=x&job_in_progress=0", headers=worker)
        assert taken.json() == {"id": job_id, "input": {"words": 2}}
        done = f"/v2/{handler_id}/job-done/w0/{job_id}"
        for word in ("one", "two"):
            sent = client.post(f"/v2/{handler_id}/job-stream/w0/{job_id}", headers=worker, json={"output": word})
            assert sent.status_code == 200
        first = client.get(f"/v2/echo/stream/{job_id}").json()
        assert [c["output"] for c in first["stream"]] == ["one", "two"] and first["status"] == "IN_PROGRESS"
        assert client.get(f"/v2/echo/stream/{job_id}").json()["stream"] == []
        client.post(done, headers=worker, json={"status": "IN_PROGRESS", "output": {"step": 1}})
        assert client.get(f"/v2/echo/status/{job_id}").json()["output"] == {"step": 1}
        assert client.post(done, headers=worker, json={"error": "out of memory"}).status_code == 200
        late = client.post(done, headers=worker, json={"status": "IN_PROGRESS", "output": {"step": 2}})
        assert late.status_code == 409
        ended = client.get(f"/v2/echo/status/{job_id}").json()
        assert (ended["status"], ended["error"]) == ("FAILED", "out of memory") and "output" not in ended
        again = client.post(f"/v2/echo/retry/{job_id}").json()
        assert again["retryOf"] == job_id and again["id"] != job_id and again["status"] == "IN_QUEUE"


def test_paths_of_workers_are_not_for_clients(yard: Yard) -> None:
    handler_id = yard.add_handler("")
    answer = requests.get(f"{yard.url}/v2/{handler_id}/ping/w0", headers=yard.headers, timeout=20)
    assert answer.status_code == 401
