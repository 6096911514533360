"""What one deployment did in a window, read once and added up: the values behind both forms of its metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from sqlmodel import Session, select

from engine.billing.meter import interval_of
from engine.billing.rating import cost_microdollars
from engine.model.deployment import DeploymentSpec, Replica, ReplicaPhase
from engine.model.latency import merged
from engine.store import deployments, traffic, usage
from engine.store.tables import DeploymentRow
from engine.store.traffic import Traffic
from engine.store.traffic_tables import MinuteRow, ReplicaMetricsRow
from stacks import catalog

MINUTE = timedelta(minutes=1)
STALE_REPLICA = timedelta(minutes=3)
"""What a replica said longer ago says nothing of now."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Sums:
    """Minutes added up; histograms as in `engine.model.latency`."""

    requests: int
    errors: int
    refused: int
    prompt_tokens: int
    completion_tokens: int
    busy_ms: int
    in_flight_peak: int
    waiting_peak: int
    ttft: Mapping[str, int]
    inter_token: Mapping[str, int]
    duration: Mapping[str, int]

    @property
    def throughput_tps(self) -> float | None:
        """Tokens per busy second; of streams that still run, their parts count."""
        tokens = max(self.completion_tokens, sum(self.ttft.values()) + sum(self.inter_token.values()))
        return round(tokens * 1000 / self.busy_ms, 3) if self.busy_ms and tokens else None


@dataclass(frozen=True)
class ReplicaNow:
    """One replica, and what its own metrics said last (None: nothing lately)."""

    replica: Replica
    said: ReplicaMetricsRow | None


@dataclass(frozen=True)
class Metered:
    """One deployment's minutes since a moment, and what it is now."""

    row: DeploymentRow
    spec: DeploymentSpec
    minutes: Sequence[MinuteRow]
    present: Traffic
    replicas: Sequence[ReplicaNow]
    cost_microdollars: int
    hourly_usd: Decimal

    @property
    def ready(self) -> int:
        return sum(r.replica.phase is ReplicaPhase.READY for r in self.replicas)

    @property
    def workers_waiting(self) -> int:
        return sum(r.said.waiting or 0 for r in self.replicas if r.said)


def read(session: Session, row: DeploymentRow, since: datetime, now: datetime) -> Metered:
    """Everything about the deployment since `since`, a full minute, in one transaction."""
    intervals = [interval_of(r) for r in usage.for_deployment(session, row.id)]
    running = deployments.running_spec_of(row)
    billed = 0 if row.delete_requested_at else running.replicas
    said = _said(session, row.id, now)
    return Metered(
        row, running, traffic.window(session, row.id, since, now + MINUTE),
        traffic.current(session, now, only=(row.id,)).get(row.id, Traffic()),
        [ReplicaNow(r, said.get(r.name)) for r in map(Replica.model_validate, row.replicas)],
        cost_microdollars(intervals, now) - cost_microdollars(intervals, since),
        catalog.hourly_usd(running.gpu_type) * billed,
    )  # fmt: skip


def add_up(minutes: Iterable[MinuteRow]) -> Sums:
    """The sum of several minutes; gateways' busy time comes to no more than there was."""
    rows = list(minutes)
    return Sums(
        sum(m.requests for m in rows), sum(m.errors for m in rows), sum(m.refused for m in rows),
        sum(m.prompt_tokens for m in rows), sum(m.completion_tokens for m in rows),
        sum(min(m.busy_ms, 60_000) for m in rows),
        max((m.in_flight_peak for m in rows), default=0), max((m.waiting_peak for m in rows), default=0),
        merged(m.ttft for m in rows), merged(m.inter_token for m in rows), merged(m.duration for m in rows),
    )  # fmt: skip


def steps(
    minutes: Sequence[MinuteRow], since: datetime, until: datetime, step: timedelta
) -> list[tuple[datetime, Sums]]:
    """The minutes of [since, until] in steps, oldest first, [n], n ≥ 1; the last one may be cut short."""
    count = max(1, -((since - until) // step))
    parts: list[list[MinuteRow]] = [[] for _ in range(count)]
    for minute in minutes:
        if 0 <= (index := (minute.minute - since) // step) < count:
            parts[index].append(minute)
    return [(since + number * step, add_up(part)) for number, part in enumerate(parts)]


def floor_to(moment: datetime, step: timedelta) -> datetime:
    """The full step (of UTC) it lies in."""
    return moment - (moment - _EPOCH) % step


def _said(session: Session, deployment_id: str, now: datetime) -> dict[str, ReplicaMetricsRow]:
    rows = session.exec(select(ReplicaMetricsRow).where(ReplicaMetricsRow.deployment_id == deployment_id)).all()
    return {row.replica: row for row in rows if row.at > now - STALE_REPLICA}
