"""Exact prices, one rounding."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.billing.meter import deployment_cost
from engine.billing.rating import Interval, cost_microdollars, cost_usd
from engine.store import usage
from engine.store.database import Database
from engine.store.tables import UsageIntervalRow
from tests.fakes.clock import START

H100 = Decimal("4.41")
SECOND = timedelta(seconds=1)


def interval(seconds: float, rate: Decimal = H100, start: float = 0.0) -> Interval:
    began = START + start * SECOND
    return Interval("r1-0", rate, began, began + seconds * SECOND)


@pytest.mark.parametrize(
    ("seconds", "rate", "microdollars"),
    [
        (3600, "4.41", 4_410_000),
        (1, "4.41", 1225),
        (0, "4.41", 0),
        (90, "2.59", 64_750),
        (1, "0.0018", 0),  # half a micro-dollar: to even
        (3, "0.0018", 2),  # one and a half: to even
        (86_400, "23.82", 571_680_000),
    ],
)
def test_seconds_at_the_hourly_rate(seconds: float, rate: str, microdollars: int) -> None:
    assert cost_microdollars([interval(seconds, Decimal(rate))], START + 100_000 * SECOND) == microdollars


def test_an_open_interval_accrues_until_now_and_never_backwards() -> None:
    running = Interval("r1-0", H100, START)
    assert cost_usd([running], START + 3600 * SECOND) == H100
    assert cost_usd([running], START - SECOND) == 0
    assert cost_usd([interval(7200)], START + 3600 * SECOND) == H100, "what has not happened yet is not billed"


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=20))
def test_differences_of_running_totals_add_up(microseconds: list[int]) -> None:
    """Posting hour by hour charges what one posting at the end would: rounding does not drift."""
    running = Interval("r1-0", H100, START)
    moments = [START]
    for step in microseconds:
        moments.append(moments[-1] + timedelta(microseconds=step))
    totals = [cost_microdollars([running], moment) for moment in moments]
    assert totals == sorted(totals)
    posted = sum(after - before for before, after in pairwise(totals))
    assert posted == cost_microdollars([running], moments[-1])


def test_a_deployment_costs_all_its_intervals(database: Database) -> None:
    with database.write() as session:
        for number, rate in enumerate(("4.41", "2.59")):
            row = UsageIntervalRow(
                id=f"use_{number}", org_id="org_1", deployment_id="dep_1", replica=f"r1-{number}", gpu_type="x",
                hourly_rate_usd=rate, started_at=START,
            )  # fmt: skip
            assert usage.insert(session, row)
        usage.close(session, "dep_1", "r1-1", START + 1800 * SECOND)
    with database.read() as session:
        assert deployment_cost(session, "dep_1", START + 3600 * SECOND) == Decimal("4.41") + Decimal("1.295")
        assert deployment_cost(session, "dep_none", START) == 0
