"""`/deployments/{id}/metrics`: what a deployment does, as JSON and for Prometheus. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Response

from api.deployment_metrics import MINUTE, Metered, ReplicaNow, Sums, add_up, floor_to, read, steps
from api.deps import CallerArg, DepsArg
from api.genai_exposition import CONTENT_TYPE, counters_since, exposition
from api.schemas.deployment_metrics import (
    DeploymentMetrics,
    Percentiles,
    QueueView,
    ReplicaCounts,
    ReplicaMetrics,
    SeriesPoint,
    Span,
    Tokens,
    WindowCost,
)
from engine.model.latency import Histogram, quantile
from engine.model.money import to_usd
from engine.store.deployments import owned

router = APIRouter(prefix="/deployments/{deployment_id}/metrics", tags=["metrics"])

SPANS: Mapping[str, tuple[timedelta, timedelta]] = MappingProxyType(
    {
        "1m": (MINUTE, MINUTE),
        "1h": (timedelta(hours=1), MINUTE),
        "24h": (timedelta(hours=24), timedelta(minutes=15)),
    }
)
"""Window -> how far it reaches back from the step that runs now, and its step."""

_TEXT = ("text/plain", "application/openmetrics-text")


@router.get(
    "",
    summary="Real-time metrics, as JSON or in Prometheus' text format",
    response_model=DeploymentMetrics,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def get_deployment_metrics(
    deployment_id: str,
    caller: CallerArg,
    deps: DepsArg,
    window: Annotated[
        Span, Query(description="1m: the last full minute and the one that runs; so 1h and 24h: and the step that runs")
    ] = "1h",
    format: Annotated[
        Literal["json", "prometheus"] | None, Query(description="left out, what `Accept` says; JSON by default")
    ] = None,
    accept: Annotated[str, Header()] = "",
) -> Any:
    now = deps.clock.now()
    as_text = format == "prometheus" or (format is None and _wants_text(accept))
    span, step = SPANS[window]
    since = counters_since(now) if as_text else floor_to(now, step) - span
    with deps.database.read() as session:
        metered = read(session, owned(session, deployment_id, caller.org_id), since, now)
    if as_text:
        return Response(exposition(metered), media_type=CONTENT_TYPE)
    return _view(metered, window, since, now)


def _wants_text(accept: str) -> bool:
    """Whether a client takes Prometheus' text and says nothing of JSON, as Prometheus itself does."""
    kinds = {kind.partition(";")[0].strip().lower() for kind in accept.split(",")}
    return any(text in kinds for text in _TEXT) and "application/json" not in kinds


def _view(metered: Metered, window: Span, since: datetime, now: datetime) -> DeploymentMetrics:
    total, (_, step) = add_up(metered.minutes), SPANS[window]
    seconds = max(1.0, (now - max(since, metered.row.created_at)).total_seconds())
    reported = [r.said.gpu_utilisation for r in metered.replicas if r.said and r.said.gpu_utilisation is not None]
    return DeploymentMetrics(
        deployment_id=metered.row.id,
        window=window,
        since=since,
        until=now,
        requests=total.requests,
        requests_per_second=round(total.requests / seconds, 4),
        errors=total.errors,
        refused=total.refused,
        tokens=Tokens(
            prompt=total.prompt_tokens,
            completion=total.completion_tokens,
            per_second=round((total.prompt_tokens + total.completion_tokens) / seconds, 4),
        ),
        ttft_ms=_percentiles(total.ttft),
        inter_token_ms=_percentiles(total.inter_token),
        duration_ms=_percentiles(total.duration),
        throughput_tps=total.throughput_tps,
        in_flight=metered.present.in_flight,
        queue=QueueView(gateway=metered.present.waiting, workers=metered.workers_waiting),
        replicas=ReplicaCounts(wanted=metered.spec.replicas, ready=metered.ready),
        gpu_utilisation=round(sum(reported) / len(reported), 4) if reported else None,
        per_replica=[_replica(r) for r in metered.replicas],
        cost=WindowCost(
            microdollars=metered.cost_microdollars,
            usd=f"{to_usd(metered.cost_microdollars):.6f}",
            hourly_usd=float(metered.hourly_usd),
        ),
        step_seconds=int(step.total_seconds()),
        series=[_point(at, sums) for at, sums in steps(metered.minutes, since, now, step)],
    )


def _percentiles(histogram: Histogram) -> Percentiles:
    return Percentiles(p50=quantile(histogram, 0.5), p95=quantile(histogram, 0.95), p99=quantile(histogram, 0.99))


def _replica(now: ReplicaNow) -> ReplicaMetrics:
    said = now.said
    return ReplicaMetrics(
        name=now.replica.name,
        phase=now.replica.phase,
        running=said.running if said else None,
        waiting=said.waiting if said else None,
        kv_cache=said.kv_cache if said else None,
        gpu_utilisation=said.gpu_utilisation if said else None,
        measured_at=said.at if said else None,
    )


def _point(at: datetime, sums: Sums) -> SeriesPoint:
    return SeriesPoint(
        at=at,
        requests=sums.requests,
        errors=sums.errors,
        refused=sums.refused,
        prompt_tokens=sums.prompt_tokens,
        completion_tokens=sums.completion_tokens,
        ttft_p95_ms=quantile(sums.ttft, 0.95),
        inter_token_p95_ms=quantile(sums.inter_token, 0.95),
        duration_p95_ms=quantile(sums.duration, 0.95),
        throughput_tps=sums.throughput_tps,
        in_flight_peak=sums.in_flight_peak,
        waiting_peak=sums.waiting_peak,
    )
