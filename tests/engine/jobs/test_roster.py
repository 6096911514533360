from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.jobs.roster import BusyMeter, WorkerEntry
from engine.model.handler import Worker

AT = datetime(2026, 11, 21, tzinfo=UTC)


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0.001, 50)), min_size=1, max_size=8))
def test_jobs_at_one_worker_share_its_time_and_pay_it_once(jobs: list[tuple[float, float]]) -> None:
    events = sorted([(at, 0, n) for n, (at, _) in enumerate(jobs)] + [(at + d, 1, n) for n, (at, d) in enumerate(jobs)])
    meter, marks, seconds, busy, last, at_work = BusyMeter(), {}, {}, 0.0, 0.0, 0
    for now, is_end, number in events:
        busy += (now - last) if at_work else 0.0
        last = now
        if is_end:
            seconds[number] = meter.leave(now, marks[number])
            at_work -= 1
        else:
            marks[number] = meter.enter(now)
            at_work += 1
    assert sum(seconds.values()) == pytest.approx(busy)
    assert all(0 <= seconds[n] <= jobs[n][1] + 1e-6 for n in seconds)


def test_idle_time_is_billed_behind_a_job_up_to_the_timeout() -> None:
    worker = WorkerEntry("hdl_1", Worker(name="w0", pool="P", target="docker", created_at=AT, phase_since=AT))
    worker.idle_begins(0.0, AT)
    worker.count_idle(100.0, AT, 5)
    assert worker.idle_unbilled == 0, "it never had a job: a cold start is free"
    worker.idle_ends(100.0, AT, 5)
    worker.has_worked = True
    worker.idle_begins(110.0, AT)
    worker.count_idle(112.0, AT, 5)
    worker.count_idle(113.0, AT, 5)
    assert worker.idle_unbilled == 3
    worker.idle_ends(200.0, AT, 5)
    assert worker.idle_unbilled == 5 and worker.idle_since is None
