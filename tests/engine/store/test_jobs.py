"""What jobs' rows promise: begun once per attempt, ended once for ever, read by those they belong to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from sqlalchemy import event

from engine.model.job import JobState
from engine.store import jobs
from engine.store.database import Database
from engine.store.migrate import migrate

NOW = datetime(2026, 11, 21, 18, tzinfo=UTC)


def row(job_id: str, *, at: datetime = NOW, handler_id: str = "hdl_1", **values: Any) -> dict[str, Any]:
    return {
        "id": job_id, "org_id": "org_1", "handler_id": handler_id, "slug": "echo", "key_id": "", "created_by": "",
        "tier": "basic", "dialect": "gpu", "state": "queued", "reason": "", "attempts": 0, "worker": "", "pool": "",
        "protocol": "", "created_at": at, "started_at": None, "finished_at": None,
        "expires_at": at + timedelta(hours=1), "execution_timeout_ms": 1000, "execution_ms": None, "cost_usd": None,
        "webhook_url_sealed": "", "request_digest": "", "retry_of": None, "purged_at": None,
    } | values  # fmt: skip


def add(store: Database, *rows: dict[str, Any]) -> None:
    with store.write() as session:
        jobs.add(session, rows, [{"job_id": r["id"], "part": "input", "sealed": b"in"} for r in rows])


def begin(job_id: str, before: int = 0) -> dict[str, Any]:
    return {"id": job_id, "attempts": before, "worker": "w0", "pool": "P", "protocol": "http", "started_at": NOW}


def end(job_id: str, attempts: int, state: JobState = JobState.SUCCEEDED) -> dict[str, Any]:
    return {
        "id": job_id, "attempts": attempts, "state": state.value, "reason": "", "finished_at": NOW, "execution_ms": 5,
        "cost_usd": Decimal("0.000001"),
    }  # fmt: skip


def test_of_many_writes_in_one_call_exactly_the_possible_ones_happen(store: Database) -> None:
    add(store, row("job_a"), row("job_b"), row("job_c"))
    with store.write() as session:
        assert jobs.start(session, [begin("job_a"), begin("job_b")]) == [True, True]
        assert jobs.start(session, [begin("job_a"), begin("job_c"), begin("job_a", 1)]) == [False, True, False]
        results = {"job_a": b"first", "job_b": b"first"}
        assert jobs.end(session, [end("job_a", 1), end("job_b", 1)], results) == [True, True]
        late = [end("job_a", 1, JobState.FAILED), end("job_c", 0), end("job_c", 1)]
        assert jobs.end(session, late, {"job_a": b"late"}) == [False, False, True]
    with store.read() as session:
        assert jobs.contents(session, ["job_a"], "result") == {"job_a": b"first"}
        found = jobs.get(session, "job_a", org_id="org_1")
        assert found is not None and found.state == "succeeded" and found.cost_usd == Decimal("0.000001")
        assert jobs.get(session, "job_a", org_id="org_2") is None


def test_a_job_that_waits_again_forgets_what_its_attempt_put_out(store: Database) -> None:
    add(store, row("job_a"))
    with store.write() as session:
        jobs.start(session, [begin("job_a")])
        assert jobs.add_partial(session, "job_a", 1, 0, b"half")
        assert jobs.add_partial(session, "job_a", 1, 0, b"whole"), "of a process that took over"
        assert jobs.partials(session, "job_a") == [(0, b"half"), (1, b"whole")]
        assert jobs.put_progress(session, "job_a", 1, b"50 %")
        assert jobs.requeue(session, [{"id": "job_a", "attempts": 1}]) == [True]
        assert jobs.partials(session, "job_a") == [] and jobs.contents(session, ["job_a"], "progress") == {}
        assert not jobs.add_partial(session, "job_a", 1, 1, b"late")
        assert jobs.requeue(session, [{"id": "job_a", "attempts": 1}]) == [False]
        assert jobs.start(session, [begin("job_a", 1)]) == [True]


def test_the_same_id_is_accepted_once(store: Database) -> None:
    with store.write() as session:
        assert jobs.add_once(session, row("job_a"), [{"job_id": "job_a", "part": "input", "sealed": b"1"}])
        assert not jobs.add_once(session, row("job_a"), [{"job_id": "job_a", "part": "input", "sealed": b"2"}])
        assert jobs.contents(session, ["job_a"], "input") == {"job_a": b"1"}


def test_queue_facts_and_pages(store: Database) -> None:
    rows = [row(f"job_{n}", at=NOW + timedelta(seconds=n)) for n in range(5)]
    add(store, *rows, row("job_other", handler_id="hdl_2"))
    with store.write() as session:
        jobs.start(session, [begin("job_0")])
        facts = jobs.queue_facts(session, "hdl_1")
        assert (facts.queued, facts.running, facts.running_by_worker) == (4, 1, {"w0": 1})
        assert facts.oldest_queued_at == NOW + timedelta(seconds=1)
        assert jobs.queue_facts(session, "hdl_3") == jobs.QueueFacts()
        assert [r.id for r in jobs.queued(session, "hdl_1", limit=2)] == ["job_1", "job_2"]
        first = jobs.page(session, jobs.Filter("org_1", handler_ids={"hdl_1"}, limit=2))
        assert [r.id for r in first] == ["job_4", "job_3"]
        before = (first[-1].created_at, first[-1].id)
        rest = jobs.page(session, jobs.Filter("org_1", states=["queued"], handler_ids={"hdl_1"}, before=before))
        assert [r.id for r in rest] == ["job_2", "job_1"]
        assert jobs.expired(session, NOW + timedelta(hours=2))[0].id == "job_other"
        assert jobs.expired(session, NOW) == []


def test_contents_go_at_retention_and_rows_later(store: Database) -> None:
    add(store, row("job_a"), row("job_b"))
    with store.write() as session:
        jobs.end(session, [end("job_a", 0, JobState.CANCELLED)], {"job_a": b"out"})
        later = NOW + timedelta(days=1)
        assert jobs.purge_contents(session, NOW, later) == 0
        assert jobs.purge_contents(session, later, later) == 1
        assert jobs.contents(session, ["job_a"], "result") == {} == jobs.contents(session, ["job_a"], "input")
        assert jobs.contents(session, ["job_b"], "input") == {"job_b": b"in"}, "it is not over"
        assert jobs.forget(session, jobs.old(session, later)) == 1 and jobs.get(session, "job_b") is not None


def test_sqlite_finds_open_jobs_by_their_index_however_many_are_over(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'plans.db'}")
    migrate(database)
    asked: list[tuple[str, Any]] = []
    event.listen(
        database.engine, "before_cursor_execute", lambda _c, _cur, text, given, *_: asked.append((text, given))
    )
    with database.read() as session:
        jobs.queued(session, "hdl_1", limit=5)
        jobs.running(session, "hdl_1")
        jobs.expired(session, NOW)
        jobs.handlers_waited_for(session)
        jobs.orphans(session)
        looks = [(text, given) for text, given in asked if text.startswith("SELECT")]
        for text, given in looks:
            plan = session.connection().exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", given).all()
            assert any("open_jobs" in row[3] for row in plan), (text, plan)
    assert len(looks) == 5
    database.close()
