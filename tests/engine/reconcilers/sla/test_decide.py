"""What to measure of a deployment, and what misses a target: the whole table, and the rule as a property."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.model.deployment import Replica, ReplicaPhase, SlaTargets
from engine.model.latency import bucket_of, quantile
from engine.reconcilers.sla.decide import LONGEST_WINDOW, after_probe, decide, judge, throughput_of, window_at
from engine.reconcilers.sla.snapshot import (
    Answered,
    Counted,
    Judge,
    Measured,
    Metric,
    Probe,
    Rest,
    Source,
    Unanswered,
    Unasked,
    Watched,
    Window,
)

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
WINDOW = Window(NOON, NOON + timedelta(minutes=1))
BOTH = SlaTargets(ttft_target_ms=500, throughput_target_tps=100)
ONLY_TTFT, ONLY_SPEED = SlaTargets(ttft_target_ms=500), SlaTargets(throughput_target_tps=100)
ANSWERS = {str(bucket_of(300)): 19, str(bucket_of(2000)): 1}
LONG = Counted(20, 9000, 20, 60_000, ANSWERS)
SHORT = Counted(20, 9000, 20, 4999, ANSWERS)
NO_FIRST = Counted(20, 9000, 0, 60_000, {})
SHORT_NO_FIRST = Counted(20, 0, 0, 100, {})
RUNNING = Counted(0, 0, 3000, 60_000, {})
SHORT_RUNNING = Counted(0, 0, 3, 900, {})


def replica(name: str) -> Replica:
    return Replica(id=name, name=name, address="127.0.0.2", endpoint="https://127.0.0.2", phase=ReplicaPhase.READY)


READY = (replica("r1-0"), replica("r1-1"))


def watched(targets: SlaTargets, counted: Counted | None = None, **changed: Any) -> Watched:
    values: dict[str, Any] = {"window": WINDOW, "counted": counted, "ready": READY} | changed
    return Watched("dep_1", "org_1", targets, "m", "00" * 32, "sealed", **values)


@pytest.mark.parametrize(
    ("seen", "does"),
    [
        (watched(BOTH, LONG), Judge),
        (watched(BOTH, LONG, is_busy=True), Judge),
        (watched(BOTH, SHORT), Judge),  # the first token can be judged, throughput cannot
        (watched(BOTH, NO_FIRST), Probe),  # and throughput is judged with what the probe says
        (watched(BOTH, NO_FIRST, is_busy=True), Probe),
        (watched(BOTH, NO_FIRST, ready=()), Judge),
        (watched(BOTH, RUNNING, is_busy=True), Judge),  # throughput alone: a stream of many minutes
        (watched(ONLY_TTFT, SHORT_RUNNING, is_busy=True), Rest),
        (watched(BOTH), Probe),
        (watched(BOTH, is_busy=True), Rest),  # its minute is not over
        (watched(BOTH, ready=()), Rest),  # loading, or all dead
        (watched(ONLY_TTFT), Probe),
        (watched(ONLY_SPEED, LONG), Judge),
        (watched(ONLY_SPEED), Rest),  # one stream does not show it
        (watched(ONLY_SPEED, SHORT_NO_FIRST), Rest),
    ],
)
def test_decisions(seen: Watched, does: type) -> None:
    assert type(decide(seen)) is does


def test_traffic_gives_p95_and_throughput_when_it_was_sustained() -> None:
    judged = decide(watched(BOTH, LONG))
    assert isinstance(judged, Judge) and judged.measured.throughput_tps == 150.0
    assert judged.measured.ttft_ms == quantile(ANSWERS, 0.95) == pytest.approx(300, rel=0.075)
    short = decide(watched(BOTH, SHORT))
    assert isinstance(short, Judge) and short.measured.throughput_tps is None


@pytest.mark.parametrize(
    ("counted", "tps"),
    [
        (Counted(9, 9000, 20, 60_000, {}), 150.0),
        (Counted(1, 20, 6000, 60_000, {}), 100.0),  # streams that run on: their tokens are not told yet
        (Counted(9, 600, 0, 5000, {}), 120.0),
        (Counted(9, 600, 0, 4999, {}), None),
        (Counted(9, 0, 0, 60_000, {}), None),  # embeddings make no tokens
    ],
)
def test_throughput_is_tokens_per_busy_second(counted: Counted, tps: float | None) -> None:
    assert throughput_of(counted) == tps


def test_a_probe_asks_another_replica_every_minute_and_waits_twice_the_target() -> None:
    first, second = (
        decide(watched(BOTH, window=Window(NOON, NOON + timedelta(minutes=minute)))) for minute in (0, 1)
    )  # fmt: skip
    assert isinstance(first, Probe) and isinstance(second, Probe)
    assert [r.name for r in first.replicas] == ["r1-0", "r1-1"] and first.replicas == second.replicas[::-1]
    limits = {500: 10.0, 20_000: 40.0, 3_600_000: 120.0}
    for target, limit in limits.items():
        asked = decide(watched(SlaTargets(ttft_target_ms=target)))
        assert isinstance(asked, Probe) and asked.limit_seconds == limit


def measured_by(outcome: Any, traffic: Measured | None = None) -> Measured | None:
    return after_probe(Probe(READY, 10.0, traffic), outcome, begun=NOON, ended=NOON + timedelta(seconds=1))


def test_a_probe_judges_the_first_token_only() -> None:
    told = measured_by(Answered(320.0, 38.0))
    assert told is not None and (told.source, told.ttft_ms, told.stream_tps) == (Source.PROBE, 320.0, 38.0)
    assert judge(BOTH, told) == [], "38 tokens a second of one stream is no throughput"
    late = measured_by(Answered(900.0, 38.0))
    assert late is not None and [b.metric for b in judge(BOTH, late)] == [Metric.TTFT]


def test_an_unanswered_probe_counts_as_having_waited_and_says_why() -> None:
    told = measured_by(Unanswered("r1-0 accepts no connections"))
    assert told is not None
    (breach,) = judge(BOTH, told)
    assert (breach.measured, breach.reason) == (10_000.0, "r1-0 accepts no connections")


def test_traffics_throughput_is_judged_with_a_probes_first_token() -> None:
    traffic = Measured(Source.TRAFFIC, WINDOW, throughput_tps=60.0)
    told = measured_by(Answered(900.0), traffic)
    assert told is not None
    assert [(b.metric, b.source) for b in judge(BOTH, told)] == [
        (Metric.TTFT, Source.PROBE), (Metric.THROUGHPUT, Source.TRAFFIC),
    ]  # fmt: skip
    assert measured_by(Unasked("the model server answers 404 to a chat"), traffic) == traffic
    assert measured_by(Unasked("the model server answers 404 to a chat")) is None


some_value = st.none() | st.floats(0.001, 1e7)


@given(
    ttft_target=st.none() | st.integers(1, 3_600_000), tps_target=st.none() | st.floats(0.001, 1e7), ttft=some_value,
    tps=some_value, source=st.sampled_from(Source),
)  # fmt: skip
def test_a_target_is_missed_exactly_when_the_measured_value_is_worse(
    ttft_target: int | None, tps_target: float | None, ttft: float | None, tps: float | None, source: Source
) -> None:
    targets = SlaTargets(ttft_target_ms=ttft_target, throughput_target_tps=tps_target)
    found = {b.metric: b for b in judge(targets, Measured(source, WINDOW, ttft, tps, stream_tps=0.001))}
    is_late = ttft_target is not None and ttft is not None and ttft > ttft_target
    is_slow = tps_target is not None and tps is not None and tps < tps_target
    assert set(found) == {m for m, missed in ((Metric.TTFT, is_late), (Metric.THROUGHPUT, is_slow)) if missed}
    if is_late:
        assert (found[Metric.TTFT].target, found[Metric.TTFT].measured) == (ttft_target, ttft)
    if is_slow:
        assert (found[Metric.THROUGHPUT].target, found[Metric.THROUGHPUT].measured) == (tps_target, tps)


@given(gaps=st.lists(st.integers(0, 400), min_size=1, max_size=20), start=st.integers(0, 59))
def test_every_full_minute_is_looked_at_once_however_the_looks_fall(gaps: list[int], start: int) -> None:
    now = NOON + timedelta(seconds=start)
    measured_at, reached = None, None
    for gap in gaps:
        window = window_at(now, measured_at)
        assert timedelta(0) <= window.until - window.since <= LONGEST_WINDOW
        assert window.until <= now - timedelta(seconds=10)
        if reached is not None and window.until - reached <= LONGEST_WINDOW:
            assert window.since == reached
        measured_at, reached = now, window.until
        now += timedelta(seconds=gap)
