"""Reads all deployments that could scale or sleep in one transaction, by a fixed number of queries."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, select
from sqlmodel import Session, col

from engine.model.deployment import MachineFailure, Phase, ReplicaPhase, Scaling
from engine.model.latency import quantile
from engine.reconcilers.deployments.snapshot import CAPACITY_AVAILABLE, REPLICAS_READY
from engine.reconcilers.scaling.snapshot import Load, Memory, Snapshot
from engine.store import autoscaling, traffic
from engine.store.tables import DeploymentRow
from engine.store.traffic import Traffic

MINUTE_IS_WHOLE_AFTER = timedelta(seconds=10)
"""Gateways add what they counted every five seconds."""

FEWEST_REQUESTS = 5
"""A p95 of fewer says what one request met, not what a replica more would change."""

OWN_WEIGHTS = "byom:"
_QUANTILE = 0.95
_NONE = Traffic()


@dataclass(frozen=True)
class _Around:
    """What is known beside the rows, by deployment; `ttft` is of the minute that began at `minute`."""

    now: datetime
    asked: Mapping[str, Traffic]
    said: Mapping[str, Sequence[Row[Any]]]
    minute: datetime
    ttft: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    remembered: Mapping[str, Row[Any]] = field(default_factory=dict)


def observe(session: Session, now: datetime) -> list[Snapshot]:
    """Everything that is awake and could be scaled or put to sleep."""
    rows = [(row, scaling) for row in _awake(session) if can_change(scaling := scaling_of(row.spec))]
    around = replace(
        _around(session, now),
        ttft=_first_tokens(session, now, {row.id for row, scaling in rows if scaling.target_latency_ms is not None}),
        remembered={row.deployment_id: row for row in autoscaling.memories(session)},
    )
    return [_snapshot(row, scaling, around) for row, scaling in rows]


def observe_sleepers(session: Session, now: datetime) -> list[Snapshot]:
    """Those that may sleep, without what only scaling asks for."""
    rows = [(row, scaling) for row in _awake(session) if (scaling := scaling_of(row.spec)).scale_to_zero]
    around = _around(session, now) if rows else _Around(now, {}, {}, now)
    return [_snapshot(row, scaling, around) for row, scaling in rows]


def _around(session: Session, now: datetime) -> _Around:
    said: dict[str, list[Row[Any]]] = defaultdict(list)
    for row in autoscaling.fresh_metrics(session, now):
        said[row.deployment_id].append(row)
    return _Around(now, traffic.current(session, now), said, last_full_minute(now))


def again(session: Session, s: Snapshot, now: datetime) -> Snapshot:
    """The same deployment with its traffic of this moment."""
    asked = traffic.current(session, now, [s.deployment_id]).get(s.deployment_id, _NONE)
    load = replace(
        s.load, in_flight=asked.in_flight, waiting=asked.waiting, last_request_at=asked.last_request_at
    )  # fmt: skip
    return replace(s, load=load)


def can_change(scaling: Scaling) -> bool:
    """Whether its replica count is the autoscaler's business at all."""
    return scaling.scale_to_zero or scaling.min_replicas < scaling.max_replicas


def _awake(session: Session) -> Sequence[Row[Any]]:
    """Columns, not objects: thousands of rows are read every few seconds."""
    row = DeploymentRow.__table__.c  # type: ignore[attr-defined]
    columns: list[Any] = [
        row.id, row.org_id, row.spec, row.generation, row.observed_generation, row.phase, row.replicas, row.conditions,
        row.created_at, row.awake_since, row.spec_changed_at, row.machine_failures,
    ]  # fmt: skip
    runs = [
        col(DeploymentRow.deleted_at), col(DeploymentRow.delete_requested_at), col(DeploymentRow.suspended_at),
        col(DeploymentRow.asleep_since),
    ]  # fmt: skip
    return session.connection().execute(select(*columns).where(*(column.is_(None) for column in runs))).all()


def scaling_of(spec: Mapping[str, Any]) -> Scaling:
    return Scaling.model_construct(**(_DEFAULTS | spec.get("scaling", {})))  # it was checked when it was stored


_DEFAULTS = Scaling().model_dump()


def _snapshot(row: Row[Any], scaling: Scaling, around: _Around) -> Snapshot:
    phases = Counter(replica["phase"] for replica in row.replicas)
    conditions = {c["type"]: c for c in row.conditions}
    since = _since(row, conditions.get(REPLICAS_READY))
    memory = around.remembered.get(row.id)
    return Snapshot(
        deployment_id=row.id,
        org_id=row.org_id,
        generation=row.generation,
        phase=Phase(row.phase),
        scaling=scaling,
        wanted=row.spec["replicas"],
        ready=phases[ReplicaPhase.READY],
        booting=phases[ReplicaPhase.BOOTING],
        unhealthy=phases[ReplicaPhase.UNHEALTHY],
        draining=phases[ReplicaPhase.DRAINING],
        observed=row.observed_generation == row.generation,
        is_short=_is_short(row, conditions.get(CAPACITY_AVAILABLE)) or _never_boots(row, around.now),
        since=since,
        load=_load(row, since, around),
        memory=Memory() if memory is None else Memory(*memory[1:]),
        spec=row.spec,
    )


def _since(row: Row[Any], readiness: Mapping[str, Any] | None) -> datetime:
    """Its conditions say when the last replica became ready, or one went."""
    times: list[datetime | None] = [row.created_at, row.awake_since]
    if readiness is not None and readiness["status"]:
        times.append(datetime.fromisoformat(readiness["changed_at"]))
    return max(t for t in times if t is not None)


def _is_short(row: Row[Any], capacity: Mapping[str, Any] | None) -> bool:
    """A refusal from before the replica count changed says nothing of what is asked for now."""
    if capacity is None or capacity["status"]:
        return False
    return row.spec_changed_at is None or datetime.fromisoformat(capacity["changed_at"]) >= row.spec_changed_at


def _never_boots(row: Row[Any], now: datetime) -> bool:
    """Whether the last machines did not get ready, and no others are made for a while."""
    failures = row.machine_failures
    if not failures or failures["cause"] != MachineFailure.NOT_READY or failures["generation"] != row.generation:
        return False
    return datetime.fromisoformat(failures["until"]) > now


def _load(row: Row[Any], since: datetime, around: _Around) -> Load:
    asked = around.asked.get(row.id, _NONE)
    ready = {replica["name"] for replica in row.replicas if replica["phase"] == ReplicaPhase.READY}
    said = [metrics for metrics in around.said.get(row.id, ()) if metrics.replica in ready]
    return Load(
        in_flight=asked.in_flight,
        waiting=asked.waiting,
        running=sum(m.running or 0 for m in said),
        queued=sum(m.waiting or 0 for m in said),
        last_request_at=asked.last_request_at,
        measured_at=min((m.at for m in said), default=None),
        kv_cache=_kv_cache(row, said, len(ready)),
        # a minute that began before the last replica was ready shows how long requests waited for that
        latency_ms=_p95(around.ttft.get(row.id)) if around.minute >= since else None,
    )


def _kv_cache(row: Row[Any], said: Sequence[Row[Any]], ready: int) -> float | None:
    """Own weights alone are served by llama.cpp in a few slots: a cache that is empty says nothing of room there."""
    shares = [m.kv_cache for m in said if m.kv_cache is not None]
    if not shares or len(shares) < ready or row.spec["model_id"].startswith(OWN_WEIGHTS):
        return None
    return float(sum(shares)) / len(shares)


def _p95(histogram: Mapping[str, int] | None) -> float | None:
    if histogram is None or sum(histogram.values()) < FEWEST_REQUESTS:
        return None
    return quantile(histogram, _QUANTILE)


def _first_tokens(session: Session, now: datetime, wanted: set[str]) -> dict[str, Mapping[str, int]]:
    """Histograms of the last full minute."""
    if not wanted:
        return {}
    rows = autoscaling.first_token_histograms(session, last_full_minute(now))
    return {row.deployment_id: row.ttft for row in rows if row.deployment_id in wanted}


def last_full_minute(now: datetime) -> datetime:
    """The beginning of the last minute of which everything is known."""
    return (now - MINUTE_IS_WHOLE_AFTER).replace(second=0, microsecond=0) - timedelta(minutes=1)
