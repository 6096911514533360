"""Queries about traffic: written by gateways in batches, read by the autoscaler, the SLA monitor and the API."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import and_, bindparam, delete, func, insert, update
from sqlalchemy import select as sa_select
from sqlmodel import Session, col, select

from engine.model.latency import merged
from engine.store.traffic_tables import MinuteRow, TrafficRow

STALE = timedelta(seconds=30)
"""A gateway writes at least every ten seconds while it has requests; one silent for longer has none."""

KEEP_MINUTES = timedelta(days=2)
"""Nobody asks for more than a day; a busy deployment has about a megabyte of them a day."""

KEEP_GATEWAYS = timedelta(days=8)


@dataclass(frozen=True)
class Traffic:
    """What all gateways together have of a deployment at this moment."""

    in_flight: int = 0
    waiting: int = 0
    last_request_at: datetime | None = None
    gateways: int = 0


@dataclass(frozen=True)
class Minute:
    """What one gateway counted since it last wrote; the fields are those of `MinuteRow`."""

    deployment_id: str
    minute: datetime
    requests: int = 0
    errors: int = 0
    refused: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    busy_ms: int = 0
    in_flight_peak: int = 0
    waiting_peak: int = 0
    ttft: Mapping[str, int] | None = None
    inter_token: Mapping[str, int] | None = None
    duration: Mapping[str, int] | None = None


_SUMMED = ("requests", "errors", "refused", "prompt_tokens", "completion_tokens", "busy_ms")
_NOW = ("deployment_id", "in_flight", "waiting", "last_request_at", "updated_at")
_PEAKS = ("in_flight_peak", "waiting_peak")
_HISTOGRAMS = ("ttft", "inter_token", "duration")
_COUNTED = (*_SUMMED, *_PEAKS, *_HISTOGRAMS)
_AT_ONCE = 500

_Key = tuple[str, datetime]


def record_now(session: Session, rows: Sequence[TrafficRow]) -> None:
    """Replace what a gateway said last; thousands of rows a second, so in two statements."""
    if not rows:
        return
    one = and_(col(TrafficRow.deployment_id) == bindparam("id"), col(TrafficRow.gateway) == bindparam("by"))
    connection = session.connection()
    connection.execute(delete(TrafficRow).where(one), [{"id": r.deployment_id, "by": r.gateway} for r in rows])
    connection.execute(insert(TrafficRow), [row.model_dump() for row in rows])


def add_minutes(session: Session, minutes: Sequence[Minute]) -> None:
    """Add what was counted to what is known of those minutes."""
    known = _known(session, minutes)
    totals: dict[_Key, dict[str, Any]] = {}
    for one in minutes:
        key = (one.deployment_id, one.minute)
        before = totals.get(key) or known.get(key) or dict.fromkeys(_SUMMED + _PEAKS, 0)
        total = {name: before[name] + getattr(one, name) for name in _SUMMED}
        total |= {name: max(before[name], getattr(one, name)) for name in _PEAKS}
        totals[key] = total | {n: merged((before.get(n) or {}, getattr(one, n) or {})) for n in _HISTOGRAMS}
    connection = session.connection()
    if new := [{"deployment_id": id, "minute": at, **totals[id, at]} for id, at in totals if (id, at) not in known]:
        connection.execute(insert(MinuteRow), new)
    if changed := [{"id": id, "at": at, **totals[id, at]} for id, at in totals if (id, at) in known]:
        row = and_(col(MinuteRow.deployment_id) == bindparam("id"), col(MinuteRow.minute) == bindparam("at"))
        connection.execute(update(MinuteRow).where(row).values({n: bindparam(n) for n in _COUNTED}), changed)


def _known(session: Session, minutes: Sequence[Minute]) -> dict[_Key, dict[str, Any]]:
    """The rows of these minutes, locked until the transaction ends: other gateways add to them too."""
    names = ("deployment_id", "minute", *_COUNTED)
    ids = sorted({one.deployment_id for one in minutes})
    query = sa_select(*(getattr(MinuteRow, name) for name in names)).order_by(
        col(MinuteRow.deployment_id), col(MinuteRow.minute)
    )
    query = query.where(col(MinuteRow.minute).in_({one.minute for one in minutes})).with_for_update()
    found: dict[_Key, dict[str, Any]] = {}
    for start in range(0, len(ids), _AT_ONCE):
        some = query.where(col(MinuteRow.deployment_id).in_(ids[start : start + _AT_ONCE]))
        for row in session.connection().execute(some).mappings():
            found[row["deployment_id"], row["minute"]] = dict(row)
    return found


def current(session: Session, now: datetime, only: Collection[str] | None = None) -> dict[str, Traffic]:
    """Deployment -> its traffic; those nobody ever called are left out."""
    query = sa_select(*(getattr(TrafficRow, name) for name in _NOW))  # of thousands, every few seconds: no objects
    if only is not None:
        query = query.where(col(TrafficRow.deployment_id).in_(only))
    found: dict[str, Traffic] = {}
    for row in session.connection().execute(query).all():
        before = found.get(row.deployment_id, Traffic())
        lives = row.updated_at > now - STALE
        times = [t for t in (before.last_request_at, row.last_request_at) if t is not None]
        found[row.deployment_id] = Traffic(
            in_flight=before.in_flight + (row.in_flight if lives else 0),
            waiting=before.waiting + (row.waiting if lives else 0),
            last_request_at=max(times, default=None),
            gateways=before.gateways + lives,
        )
    return found


def window(session: Session, deployment_id: str, since: datetime, until: datetime) -> Sequence[MinuteRow]:
    """Minutes that began in [since, until), oldest first; those without requests are left out."""
    query = select(MinuteRow).where(
        MinuteRow.deployment_id == deployment_id, col(MinuteRow.minute) >= since, col(MinuteRow.minute) < until
    )
    return session.exec(query.order_by(col(MinuteRow.minute))).all()


def prune(session: Session, now: datetime) -> None:
    """Forget gateways that are long gone."""
    session.connection().execute(delete(TrafficRow).where(col(TrafficRow.updated_at) < now - KEEP_GATEWAYS))


def prune_a_minute(session: Session, now: datetime) -> bool:
    """Forget the oldest minute, if it is old enough; False when there was none.

    One at a time: in an hour there may be hundreds of thousands, and who writes meanwhile wakes deployments.
    """
    oldest = session.exec(select(func.min(MinuteRow.minute))).one()
    if oldest is None or oldest >= now - KEEP_MINUTES:
        return False
    session.connection().execute(delete(MinuteRow).where(col(MinuteRow.minute) == oldest))
    return True
