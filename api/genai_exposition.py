"""One deployment's metrics in Prometheus' text format, named as OpenTelemetry's conventions for generative AI say.

Source: OpenTelemetry semantic conventions 1.37, `gen-ai-metrics.md` (names, attributes, bucket boundaries), and its
"Prometheus and OpenMetrics Compatibility" (dots become underscores, a unit of seconds is added, `{token}` is not).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from api.deployment_metrics import Metered, Sums, add_up, floor_to
from engine.model.latency import BOUNDS_MS, RATIO

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
PROVIDER = "stackyard"

DURATION_BOUNDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
TTFT_BOUNDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
PER_TOKEN_BOUNDS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)


def counters_since(now: datetime) -> datetime:
    """Since when counters count: the last UTC midnight. They begin anew then, which `rate` and `increase` allow for."""
    return floor_to(now, timedelta(days=1))


def exposition(metered: Metered) -> bytes:
    """Prometheus' text; counters and histograms are of `metered.minutes`, gauges of this moment."""
    return generate_latest(_Collected(metered))


class _Collected(Collector):
    def __init__(self, metered: Metered) -> None:
        self._metered = metered

    def collect(self) -> Iterator[Metric]:
        metered = self._metered
        total = add_up(metered.minutes)
        labels = {"deployment_id": metered.row.id, "gen_ai_provider_name": PROVIDER, "gen_ai_operation_name": "chat",
                  "gen_ai_request_model": metered.spec.model_id}  # fmt: skip
        yield _latency("gen_ai_server_request_duration_seconds", "From accept to the end of the answer",
                       labels, total.duration, DURATION_BOUNDS)  # fmt: skip
        yield _latency("gen_ai_server_time_to_first_token_seconds", "Until the first token", labels, total.ttft,
                       TTFT_BOUNDS)  # fmt: skip
        yield _latency("gen_ai_server_time_per_output_token_seconds", "Between the parts of streams", labels,
                       total.inter_token, PER_TOKEN_BOUNDS)  # fmt: skip
        yield _token_usage(labels, total)
        own = {"deployment_id": metered.row.id}
        yield from _counters(own, total)
        yield from _gauges(own, metered)
        yield from _of_replicas(own, metered)


def _latency(
    name: str, text: str, labels: Mapping[str, str], counts: Mapping[str, int], bounds: Sequence[float]
) -> Metric:
    """A histogram in the conventions' buckets: what was counted in a finer one lies at its middle."""
    found = HistogramMetricFamily(name, text, labels=list(labels))
    middles = sorted((_middle_seconds(int(bucket)), count) for bucket, count in counts.items())
    buckets, seen, at = [], 0, 0
    for bound in bounds:
        while at < len(middles) and middles[at][0] <= bound:
            seen += middles[at][1]
            at += 1
        buckets.append((str(bound), float(seen)))
    buckets.append(("+Inf", float(sum(counts.values()))))
    found.add_metric(list(labels.values()), buckets, sum(middle * count for middle, count in middles))
    return found


def _middle_seconds(bucket: int) -> float:
    if bucket >= len(BOUNDS_MS):
        return BOUNDS_MS[-1] / 1000
    return float(BOUNDS_MS[bucket] / RATIO**0.5 / 1000)


def _token_usage(labels: Mapping[str, str], total: Sums) -> Metric:
    """Sums and counts only: tokens are not kept by request, so there is one bucket."""
    found = HistogramMetricFamily(
        "gen_ai_client_token_usage", "Tokens of answered requests", labels=[*labels, "gen_ai_token_type"]
    )
    answered = float(max(0, total.requests - total.errors - total.refused))
    for kind, tokens in (("input", total.prompt_tokens), ("output", total.completion_tokens)):
        found.add_metric([*labels.values(), kind], [("+Inf", answered)], float(tokens))
    return found


def _counters(own: Mapping[str, str], total: Sums) -> Iterator[Metric]:
    for name, text, value in (
        ("requests", "Requests that ended, whatever came out", total.requests),
        ("errors", "Answered with 500 or more, or broken off by a replica", total.errors),
        ("refused", "Turned away by the concurrency limit or the wake limit", total.refused),
        ("prompt_tokens", "Tokens of prompts", total.prompt_tokens),
        ("completion_tokens", "Tokens of answers", total.completion_tokens),
        ("busy_seconds", "Time with requests at replicas", total.busy_ms / 1000),
    ):
        found = CounterMetricFamily(f"stackyard_deployment_{name}", text, labels=list(own))
        found.add_metric(list(own.values()), float(value))
        yield found


def _gauges(own: Mapping[str, str], metered: Metered) -> Iterator[Metric]:
    for name, text, value in (
        ("in_flight", "Requests at replicas now", metered.present.in_flight),
        ("gateway_waiting", "Requests held until a replica wakes or a place is free", metered.present.waiting),
        ("workers_waiting", "Requests that wait in the model servers", metered.workers_waiting),
        ("replicas_wanted", "Replicas its specification and its sleep ask for", metered.spec.replicas),
        ("replicas_ready", "Replicas whose last health check was good", metered.ready),
        ("hourly_cost_usd", "What an hour of it costs now", float(metered.hourly_usd)),
    ):
        found = GaugeMetricFamily(f"stackyard_deployment_{name}", text, labels=list(own))
        found.add_metric(list(own.values()), float(value))
        yield found


def _of_replicas(own: Mapping[str, str], metered: Metered) -> Iterator[Metric]:
    for name, text, field in (
        ("running", "Requests its server runs", "running"),
        ("waiting", "Requests that wait in its server", "waiting"),
        ("kv_cache_ratio", "Share of its KV cache in use", "kv_cache"),
        ("gpu_utilisation_ratio", "Share of time its GPU works", "gpu_utilisation"),
    ):
        found = GaugeMetricFamily(f"stackyard_replica_{name}", text, labels=[*own, "replica"])
        for one in metered.replicas:
            if one.said is not None and (value := getattr(one.said, field)) is not None:
                found.add_metric([*own.values(), one.replica.name], float(value))
        yield found
