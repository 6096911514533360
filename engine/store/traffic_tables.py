"""Tables of what deployments are asked and how they answer: traffic, measurements, SLA. Records, not behaviour."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Column, Index
from sqlmodel import Field, SQLModel

from engine.store.tables import UtcDateTime, json_column, time_column


def _count() -> Any:
    return Field(default=0, sa_column=Column(BigInteger, nullable=False))


class TrafficRow(SQLModel, table=True):
    """What one gateway process has of one deployment at this moment. Stale after `traffic.STALE`: it is gone then."""

    __tablename__ = "deployment_traffic"
    deployment_id: str = Field(primary_key=True)
    gateway: str = Field(primary_key=True)
    in_flight: int = 0  # at replicas
    waiting: int = 0  # held until a replica wakes, or behind the concurrency limit
    last_request_at: datetime | None = time_column()  # last moment at which a request began, waited, ran or ended
    updated_at: datetime = time_column(nullable=False)


class MinuteRow(SQLModel, table=True):
    """What a deployment answered in one UTC minute, all gateways together; histograms as in `model.latency`."""

    __tablename__ = "deployment_minutes"
    __table_args__ = (Index("minutes_by_age", "minute"),)
    deployment_id: str = Field(primary_key=True)
    minute: datetime = Field(sa_column=Column(UtcDateTime(), primary_key=True))
    requests: int = _count()  # ended in it, whatever came out
    errors: int = _count()  # of these, with a status of 500 or more, or broken off by the replica
    refused: int = _count()  # turned away by the concurrency limit or the wake limit
    prompt_tokens: int = _count()
    completion_tokens: int = _count()
    busy_ms: int = _count()  # milliseconds with a request in flight, summed over gateways
    in_flight_peak: int = 0
    waiting_peak: int = 0
    ttft: dict[str, int] = json_column(dict)  # until the first token: streams only, others do not show it
    inter_token: dict[str, int] = json_column(dict)  # between the pieces of a stream
    duration: dict[str, int] = json_column(dict)  # from accept to the end


class ReplicaMetricsRow(SQLModel, table=True):
    """What one replica's own metrics said last; None: its server does not report it."""

    __tablename__ = "replica_metrics"
    deployment_id: str = Field(primary_key=True)
    replica: str = Field(primary_key=True)
    at: datetime = time_column(nullable=False)
    running: int | None = None
    waiting: int | None = None
    kv_cache: float | None = None  # share in use, 0 to 1
    gpu_utilisation: float | None = None  # 0 to 1


class AutoscalerRow(SQLModel, table=True):
    """What the autoscaler remembers of one deployment between its looks."""

    __tablename__ = "autoscaler_states"
    deployment_id: str = Field(primary_key=True)
    above: int = 0  # looks in a row above a threshold
    below: int = 0
    scaled_at: datetime | None = time_column()
    reason: str = ""  # of the last change, a sentence
    checked_at: datetime | None = time_column()


class SlaStateRow(SQLModel, table=True):
    """The last measurement against a deployment's targets."""

    __tablename__ = "sla_states"
    deployment_id: str = Field(primary_key=True)
    measured_at: datetime = time_column(nullable=False)
    source: str  # `traffic` or `probe`
    last_ttft_ms: float | None = None
    last_throughput_tps: float | None = None


class SlaBreachRow(SQLModel, table=True):
    """One missed target."""

    __tablename__ = "sla_breaches"
    __table_args__ = (Index("breaches_of_deployment", "deployment_id", "at"),)
    id: str = Field(primary_key=True)  # brc_...
    deployment_id: str
    at: datetime = time_column(nullable=False)
    metric: str  # `ttft_ms` or `throughput_tps`
    target: float
    measured: float
    source: str  # `traffic` or `probe`
