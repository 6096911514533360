"""Several processes accept, one dispatches; and what does not fit into its memory waits in the store."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from engine.jobs import dispatcher
from engine.jobs.processes import is_surely_gone, process_name
from engine.model.worker_token import worker_token
from tests.fakes.handler_server import HandlerServer
from tests.fakes.job_yard import SECONDS, Yard, serve


def test_a_process_that_only_accepts_has_its_jobs_done_and_cancelled_by_the_other(
    yard: Yard, tmp_path: Path, server: HandlerServer
) -> None:
    handler_id = yard.add_handler()
    with serve(replace(yard), tmp_path) as other:
        assert yard.service is not None and other.service is not None
        services = (yard.service, other.service)
        leading = yard.until(lambda: next((s for s in services if s.dispatcher.is_leading), None))
        accepting = other if leading is yard.service else yard
        waiting, unwanted = accepting.run(job_input="x"), accepting.run(job_input="y")
        entry = yard.until(lambda: leading.dispatcher.roster.get(handler_id))
        yard.until(lambda: len(entry.queue) == 2)
        with accepting.client() as client:
            assert client.post(f"/v1/gpu/jobs/{unwanted}/cancel").json()["status"] == "cancelled"
            yard.until(lambda: len(entry.queue) == 1)
            yard.change(handler_id, workers=yard.workers(server))
            assert accepting.ended(waiting)["output"] == {"echo": "x"}
            job = client.post("/v1/gpu/runsync/echo", json={"input": "z"}).json()
            assert job["output"] == {"echo": "z"}
    assert [body["input"] for body in server.received] == ["x", "z"]


def test_more_jobs_than_fit_into_memory_are_done_in_order(
    yard: Yard, server: HandlerServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatcher, "MOST_LOADED", 3)
    monkeypatch.setattr(dispatcher, "REFILL_BELOW", 2)
    handler_id = yard.add_handler()
    ids = [yard.run(job_input=n) for n in range(10)]
    yard.change(handler_id, workers=yard.workers(server))
    assert [yard.ended(job)["output"] for job in ids] == [{"echo": n} for n in range(10)]
    assert [body["input"] for body in server.received] == list(range(10))


def test_a_worker_that_asks_streams_and_reports_and_is_told_when_it_is_too_late(yard: Yard) -> None:
    handler_id = yard.add_handler("http://127.0.0.1:9")
    token = {"Authorization": worker_token("token", handler_id, "w0")}
    job_id = yard.run(job_input={"n": 2})
    with yard.client() as client, yard.client(token) as worker:
        taken = yard.until(lambda: (a := worker.get(f"/v2/{handler_id}/job-take/w0")).status_code == 200 and a.json())
        assert taken == {"id": job_id, "input": {"n": 2}}
        done = f"/v2/{handler_id}/job-done/w0/{job_id}"
        note = {"status": "IN_PROGRESS", "output": "half"}
        assert worker.post(done, json=note).status_code == 200
        assert client.get(f"/v1/gpu/jobs/{job_id}").json()["progress"] == "half"
        for n in range(2):
            chunk = {"output": {"n": n}}
            assert worker.post(f"/v2/{handler_id}/job-stream/w0/{job_id}", json=chunk).status_code == 200
        events: list[tuple[str, object]] = []
        with client.stream("GET", f"/v1/gpu/jobs/{job_id}/stream", timeout=SECONDS) as stream:
            kind = ""
            for line in stream.iter_lines():
                if line.startswith("event: "):
                    kind = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    events.append((kind, json.loads(line.removeprefix("data: "))))
                    if len(events) == 2:
                        assert worker.post(done, json={"output": "all"}).status_code == 200
        assert events[:2] == [("partial", {"n": 0}), ("partial", {"n": 1})]
        assert events[2][0] == "done" and isinstance(events[2][1], dict) and events[2][1]["output"] == "all"
        assert worker.post(done, json={"output": "again"}).status_code == 409
        assert worker.post(done, json=note).status_code == 409, "late progress changes nothing"
        assert client.get(f"/v1/gpu/jobs/{job_id}").json()["output"] == "all"


def test_a_process_is_gone_only_if_this_machine_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = process_name()
    before, _, began = mine.rpartition(":")
    assert not is_surely_gone(mine)
    assert is_surely_gone(f"{before}:{int(began) + 1}"), "its id belongs to another process by now"
    elsewhere: Callable[[str], str] = lambda name: name.replace(mine.split(":")[1], "another-machine")  # noqa: E731
    assert not is_surely_gone(elsewhere(f"{before}:1")) and not is_surely_gone("worker-1")
