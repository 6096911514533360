"""Service levels on the wire: targets, what was measured against them, and what missed them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class SlaChange(BaseModel):
    """Body of `PATCH /deployments/{id}/sla`; what is left out stays as it is, `null` takes a target away."""

    model_config = ConfigDict(extra="forbid")

    ttft_target_ms: int | None = Field(
        None, examples=[500], description="p95 of the time to the first token, at most; 1 to 3,600,000"
    )
    throughput_target_tps: float | None = Field(
        None, examples=[100], description="tokens a second while there is work, at least; above 0, to 10,000,000"
    )
    concurrency_limit: int | None = Field(
        None, examples=[50], description="requests at the replicas at the same time; more wait; 1 to 100,000"
    )


class SlaBreachView(BaseModel):
    """One missed target."""

    id: str
    at: datetime
    metric: Literal["ttft_ms", "throughput_tps"]
    target: float
    measured: float
    source: Literal["traffic", "probe"]


class SlaView(BaseModel):
    """Answer of `GET` and `PATCH /deployments/{id}/sla`."""

    ttft_target_ms: int | None
    throughput_target_tps: float | None
    concurrency_limit: int | None
    status: Literal["ok", "breached", "unknown"] = Field(
        description="what the last measurement said; unknown: no targets, none yet, or none for five minutes"
    )
    breach_count_24h: int
    last_ttft_ms: float | None
    last_throughput_tps: float | None = Field(
        description="of sustained traffic; when the source is a probe and there was none, the speed of its one stream"
    )
    measured_at: datetime | None
    source: Literal["traffic", "probe"] | None
    breaches: list[SlaBreachView] = Field(description="the newest twenty; more: `GET …/sla/breaches`")


class SlaBreachPage(BaseModel):
    """A page of the breach log, newest first; ask for the next with `after` = the last one's id."""

    data: list[SlaBreachView]
    has_more: bool
