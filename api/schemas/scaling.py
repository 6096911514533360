"""Scaling of a deployment on the wire. Not the stored specification: `engine.model.deployment.Scaling` is."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.deployments import MAX_REPLICAS
from engine.model.deployment import Scaling


class ScalingChange(BaseModel):
    """Body of `PATCH /deployments/{id}/scaling`; what is left out stays as it is, null clears a target."""

    model_config = ConfigDict(extra="forbid")

    min_replicas: int | None = Field(None, ge=0, le=MAX_REPLICAS)
    max_replicas: int | None = Field(None, ge=1, le=MAX_REPLICAS)
    scale_to_zero: bool | None = Field(None, description="false wakes a deployment that sleeps")
    idle_timeout_seconds: int | None = Field(None, ge=5)
    target_queue_depth: int | None = Field(
        None, ge=1, le=10_000, description="waiting requests per replica above which one is added; null: the default"
    )
    target_latency_ms: int | None = Field(
        None, ge=1, le=3_600_000, description="p95 of the time to the first token above which one is added; null: off"
    )
    replicas: int | None = Field(
        None, ge=1, le=MAX_REPLICAS, description="how many to run now, within the bounds; wakes one that sleeps"
    )


class ScalingDecision(BaseModel):
    """What the autoscaler did last, or would have done."""

    reason: str
    at: datetime


class ScalingView(Scaling):
    """Answer of `GET` and `PATCH /deployments/{id}/scaling`."""

    replicas: int
    ready_replicas: int
    asleep_since: datetime | None = Field(description="it runs nothing since then; the next request wakes it")
    queue_depth: float = Field(description="requests that wait at this moment, per ready replica")
    last_decision: ScalingDecision | None
