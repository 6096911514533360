"""What to do about one deployment's targets, and whether a measurement missed them. Pure; asks nobody."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import assert_never

from engine.model.deployment import Replica, SlaTargets
from engine.model.latency import quantile
from engine.reconcilers.sla.snapshot import (
    Action,
    Answered,
    Breach,
    Counted,
    Judge,
    Measured,
    Metric,
    Probe,
    ProbeOutcome,
    Rest,
    Source,
    Unanswered,
    Unasked,
    Watched,
    Window,
)

MINUTE = timedelta(minutes=1)
LAG = timedelta(seconds=10)
"""A minute is looked at this long after its end: gateways add what they counted every five seconds."""

LONGEST_WINDOW = timedelta(minutes=5)
"""What happened before the leader was away for longer is not judged any more."""

JUDGED_SHARE = 0.95
"""Of the requests whose first token must come within the target."""

SUSTAINED_MS = 5000
"""Throughput is judged when requests were in flight this long: shorter traffic shows mostly prompts and waiting."""

SHORTEST_LIMIT_SECONDS, LONGEST_LIMIT_SECONDS = 10.0, 120.0


def window_at(now: datetime, measured_at: datetime | None) -> Window:
    """The full minutes since the last measurement (the last full minute when there was none), each looked at once."""
    until = floor_minute(now - LAG)
    since = until - MINUTE if measured_at is None else floor_minute(measured_at - LAG)
    return Window(min(until, max(since, until - LONGEST_WINDOW)), until)


def floor_minute(moment: datetime) -> datetime:
    return moment.replace(second=0, microsecond=0)


def decide(watched: Watched) -> Action:
    """Judge what traffic showed; ask a replica for the first token when traffic did not show it."""
    traffic = None if watched.counted is None else _of_traffic(watched.counted, watched.window)
    asks_ttft = watched.targets.ttft_target_ms is not None
    if asks_ttft and watched.ready and (traffic is None or traffic.ttft_ms is None):
        has_ended = watched.counted is not None and watched.counted.requests > 0
        if has_ended or not watched.is_busy:  # else its requests run, and will tell when their minute is over
            return Probe(_in_turn(watched.ready, watched.window), _limit_seconds(watched.targets), traffic)
    if traffic is None or (traffic.ttft_ms is None and traffic.throughput_tps is None):
        return Rest()
    return Judge(traffic)


def after_probe(probe: Probe, outcome: ProbeOutcome, *, begun: datetime, ended: datetime) -> Measured | None:
    """The measurement a probe made, with what traffic told; None when there is none."""
    throughput = probe.traffic.throughput_tps if probe.traffic else None
    window = Window(begun, ended)
    match outcome:
        case Answered(ttft_ms, stream_tps):
            return Measured(Source.PROBE, window, ttft_ms, throughput, stream_tps)
        case Unanswered(reason):
            return Measured(Source.PROBE, window, probe.limit_seconds * 1000, throughput, reason=reason)
        case Unasked():
            return probe.traffic if throughput is not None else None
        case _:
            assert_never(outcome)


def judge(targets: SlaTargets, measured: Measured) -> list[Breach]:
    """The targets it missed: measured worse than the target, not equal to it."""
    found = []
    ttft, throughput = targets.ttft_target_ms, targets.throughput_target_tps
    if ttft is not None and measured.ttft_ms is not None and measured.ttft_ms > ttft:
        found.append(_breach(Metric.TTFT, ttft, measured.ttft_ms, measured, measured.source))
    if throughput is not None and measured.throughput_tps is not None and measured.throughput_tps < throughput:
        found.append(_breach(Metric.THROUGHPUT, throughput, measured.throughput_tps, measured, Source.TRAFFIC))
    return found


def throughput_of(counted: Counted) -> float | None:
    """Tokens per busy second; None when traffic was not sustained, or made no tokens (embeddings).

    Tokens are known when a request ends; of streams that run beyond the window their parts are known as they pass.
    """
    tokens = max(counted.completion_tokens, counted.pieces)
    if counted.busy_ms < SUSTAINED_MS or not tokens:
        return None
    return round(tokens * 1000 / counted.busy_ms, 3)


def _in_turn(ready: Sequence[Replica], window: Window) -> tuple[Replica, ...]:
    """Each minute begins with another replica."""
    first = window.until.minute % len(ready)
    return (*ready[first:], *ready[:first])


def _of_traffic(counted: Counted, window: Window) -> Measured:
    return Measured(Source.TRAFFIC, window, quantile(counted.ttft, JUDGED_SHARE), throughput_of(counted))


def _breach(metric: Metric, target: float, value: float, measured: Measured, source: Source) -> Breach:
    reason = measured.reason if metric is Metric.TTFT else ""
    return Breach(metric, float(target), value, source, measured.window, reason)


def _limit_seconds(targets: SlaTargets) -> float:
    """How long a probe waits for an answer: twice the target, within bounds."""
    return min(LONGEST_LIMIT_SECONDS, max(SHORTEST_LIMIT_SECONDS, 2 * (targets.ttft_target_ms or 0) / 1000))
