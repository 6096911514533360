"""Metrics of one deployment on the wire: rates, latencies, queues, replicas and money of a window, and their graph."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field

Span = Literal["1m", "1h", "24h"]


class Percentiles(BaseModel):
    """Milliseconds, wrong by 7.5 % at most; null when there were none."""

    p50: float | None
    p95: float | None
    p99: float | None


class Tokens(BaseModel):
    """Tokens of the answers that ended in the window."""

    prompt: int
    completion: int
    per_second: float = Field(description="both together, over the window's seconds, idle ones included")


class QueueView(BaseModel):
    """Requests that wait now."""

    gateway: int = Field(description="until a replica wakes, or behind the concurrency limit")
    workers: int = Field(description="in the model servers, as they said last")


class ReplicaCounts(BaseModel):
    wanted: int
    ready: int


class ReplicaMetrics(BaseModel):
    """One replica as it was last observed; null: its server does not report it, or not for three minutes."""

    name: str
    phase: str
    running: int | None
    waiting: int | None
    kv_cache: float | None = Field(description="share in use, 0 to 1")
    gpu_utilisation: float | None = Field(description="0 to 1")
    measured_at: datetime | None


class WindowCost(BaseModel):
    """What the replicas cost in the window, and cost now."""

    microdollars: int
    usd: str
    hourly_usd: float


class SeriesPoint(BaseModel):
    """One step of the graph; the last one still runs."""

    at: datetime
    requests: int
    errors: int
    refused: int
    prompt_tokens: int
    completion_tokens: int
    ttft_p95_ms: float | None
    inter_token_p95_ms: float | None
    duration_p95_ms: float | None
    throughput_tps: float | None
    in_flight_peak: int
    waiting_peak: int


class DeploymentMetrics(BaseModel):
    """Answer of `GET /deployments/{id}/metrics`."""

    deployment_id: str
    window: Span
    since: datetime
    until: datetime
    requests: int = Field(description="ended in the window, whatever came out")
    requests_per_second: float
    errors: int = Field(description="answered with 500 or more, or broken off by a replica")
    refused: int = Field(description="turned away by the concurrency limit or the wake limit")
    tokens: Tokens
    ttft_ms: Percentiles
    inter_token_ms: Percentiles
    duration_ms: Percentiles
    throughput_tps: float | None = Field(description="completion tokens a second while requests ran")
    in_flight: int = Field(description="now")
    queue: QueueView
    replicas: ReplicaCounts
    gpu_utilisation: float | None = Field(description="mean of the replicas that report it")
    per_replica: list[ReplicaMetrics]
    cost: WindowCost
    step_seconds: int
    series: list[SeriesPoint] = Field(description="oldest first, steps without requests included")
