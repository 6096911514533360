"""How much an organisation may have waiting."""

from __future__ import annotations

from datetime import timedelta

import pytest

from engine.jobs.backlog import FRESH_SECONDS, QUIET_SECONDS, SURE_SECONDS, Backlog, BacklogLimits
from engine.model.errors import RateLimited, TooLarge
from engine.model.job import JobState
from engine.store import jobs
from engine.store.database import Database
from engine.store.job_tables import JobRow
from tests.fakes.clock import FakeClock


def waiting(store: Database, clock: FakeClock, *job_ids: str, org_handler: str = "hdl_1", size: int = 100) -> None:
    rows = [
        JobRow(
            id=id, org_id="org_1", handler_id=org_handler, slug="echo", tier="basic", state=JobState.QUEUED.value,
            created_at=clock.now(), expires_at=clock.now() + timedelta(hours=1), execution_timeout_ms=1000,
        ).model_dump()
        for id in job_ids
    ]  # fmt: skip
    with store.write() as session:
        jobs.add(session, rows, [{"job_id": id, "part": "input", "sealed": b"x" * size} for id in job_ids])


async def test_so_many_jobs_and_no_more(store: Database, clock: FakeClock) -> None:
    backlog = Backlog(store, clock, BacklogLimits(jobs=4))
    waiting(store, clock, "job_a", "job_b")
    waiting(store, clock, "job_c", org_handler="hdl_of_others")
    for _ in range(2):
        await backlog.admit("org_1", lambda: ["hdl_1"], 1)
    with pytest.raises(RateLimited, match=r"4 jobs of your organisation wait already, 4 may.*purge-queue") as refused:
        await backlog.admit("org_1", lambda: ["hdl_1"], 1)
    assert refused.value.details["retry_after_seconds"] == FRESH_SECONDS
    await backlog.admit("org_2", lambda: [], 1)
    clock.advance(SURE_SECONDS)
    await backlog.admit("org_1", lambda: ["hdl_1"], 1)  # the two that were admitted have ended meanwhile


async def test_so_many_bytes_and_no_more(store: Database, clock: FakeClock) -> None:
    backlog = Backlog(store, clock, BacklogLimits(input_bytes=1000))
    waiting(store, clock, "job_a", size=800)
    await backlog.admit("org_1", lambda: ["hdl_1"], 150)
    with pytest.raises(TooLarge, match=r"950 bytes wait .* 1000 may: put large inputs into storage"):
        await backlog.admit("org_1", lambda: ["hdl_1"], 51)
    await backlog.admit("org_1", lambda: ["hdl_1"], 50)


async def test_far_below_its_limits_nobody_is_counted_often(store: Database, clock: FakeClock) -> None:
    backlog, looks = Backlog(store, clock, BacklogLimits(jobs=1000)), []
    for _ in range(3):
        await backlog.admit("org_1", lambda: looks.append(1) or ["hdl_1"], 1)
        clock.advance(FRESH_SECONDS)
    assert len(looks) == 1
    clock.advance(QUIET_SECONDS)
    await backlog.admit("org_1", lambda: looks.append(1) or ["hdl_1"], 1)
    assert len(looks) == 2
