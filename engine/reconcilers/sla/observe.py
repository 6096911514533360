"""Reads what the SLA monitor judges: every deployment with targets that is up, in five queries for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from sqlalchemy import select as select_columns
from sqlmodel import Session, col, select

from engine.model.deployment import Replica, ReplicaPhase
from engine.model.latency import merged
from engine.reconcilers.sla.decide import window_at
from engine.reconcilers.sla.snapshot import Counted, Watched, Window
from engine.store import deployments, sla, traffic
from engine.store.tables import DeploymentRow
from engine.store.traffic import Traffic
from engine.store.traffic_tables import MinuteRow

JUDGED = ("ttft_target_ms", "throughput_target_tps")
"""Targets that are measured; the concurrency limit is held in the gateway."""

MINUTE_MS = 60_000
"""Gateways count their busy time apart: together they may come to more than there was."""

_IDS_PER_QUERY = 1000


def observe(session: Session, now: datetime) -> list[Watched]:
    """Deployments with a target that run: not asleep, suspended, or leaving. By id."""
    rows = list(_rows_with_targets(session))
    if not rows:
        return []
    states = sla.states(session)
    windows = {row.id: window_at(now, states[row.id].measured_at if row.id in states else None) for row in rows}
    counted = _counted(session, windows)
    present = traffic.current(session, now)
    return [_watched(row, windows[row.id], counted.get(row.id), present.get(row.id, Traffic())) for row in rows]


def _rows_with_targets(session: Session) -> Iterator[DeploymentRow]:
    """Few of many have targets, so all are asked for those first, and only these are read."""
    is_up = (
        col(DeploymentRow.deleted_at).is_(None),
        col(DeploymentRow.delete_requested_at).is_(None),
        col(DeploymentRow.suspended_at).is_(None),
        col(DeploymentRow.asleep_since).is_(None),
    )
    query = select(DeploymentRow.id, DeploymentRow.sla).where(*is_up).order_by(col(DeploymentRow.id))
    ids = [id for id, targets in session.exec(query).all() if any(targets.get(name) is not None for name in JUDGED)]
    for start in range(0, len(ids), _IDS_PER_QUERY):
        part = col(DeploymentRow.id).in_(ids[start : start + _IDS_PER_QUERY])
        yield from session.exec(select(DeploymentRow).where(part).order_by(col(DeploymentRow.id))).all()


def _counted(session: Session, windows: Mapping[str, Window]) -> dict[str, Counted]:
    """What was counted in each one's window; those without are left out."""
    since, until = min(w.since for w in windows.values()), max(w.until for w in windows.values())
    query = select_columns(
        col(MinuteRow.deployment_id), col(MinuteRow.minute), col(MinuteRow.requests),
        col(MinuteRow.completion_tokens), col(MinuteRow.busy_ms), col(MinuteRow.ttft), col(MinuteRow.inter_token),
    ).where(col(MinuteRow.minute) >= since, col(MinuteRow.minute) < until)  # fmt: skip
    found: dict[str, list[Counted]] = {}
    for deployment_id, minute, requests, tokens, busy_ms, ttft, between in session.connection().execute(query).all():
        window = windows.get(deployment_id)
        if window is not None and (requests or busy_ms) and window.since <= minute < window.until:
            pieces = sum(ttft.values()) + sum(between.values())
            counted = Counted(requests, tokens, pieces, min(busy_ms, MINUTE_MS), ttft)
            found.setdefault(deployment_id, []).append(counted)
    return {deployment_id: _sum(minutes) for deployment_id, minutes in found.items()}


def _sum(minutes: Sequence[Counted]) -> Counted:
    return Counted(
        sum(m.requests for m in minutes), sum(m.completion_tokens for m in minutes), sum(m.pieces for m in minutes),
        sum(m.busy_ms for m in minutes), merged(m.ttft for m in minutes),
    )  # fmt: skip


def _watched(row: DeploymentRow, window: Window, counted: Counted | None, present: Traffic) -> Watched:
    replicas = [Replica.model_validate(r) for r in row.replicas]
    came_after = present.last_request_at is not None and present.last_request_at >= window.until
    return Watched(
        row.id, row.org_id, deployments.sla_of(row), deployments.spec_of(row).model_id, row.worker_fingerprint,
        row.worker_token_sealed, window, counted, is_busy=bool(present.in_flight or present.waiting or came_after),
        ready=tuple(r for r in replicas if r.phase is ReplicaPhase.READY),
    )  # fmt: skip
