"""Queries about what the autoscaler remembers and what replicas measure of themselves. One writer: the leader."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row, and_, bindparam, delete, insert, update
from sqlalchemy import select as select_columns
from sqlmodel import Session, SQLModel, col, select

from engine.store.tables import DeploymentRow
from engine.store.traffic_tables import AutoscalerRow, MinuteRow, ReplicaMetricsRow

FRESH = timedelta(minutes=2)
"""What a replica said of itself longer ago says nothing about now; it is asked every half minute."""

_CHUNK = 500


def memory_of(session: Session, deployment_id: str) -> AutoscalerRow | None:
    """What is remembered of one deployment; None: it was never near a target."""
    return session.get(AutoscalerRow, deployment_id)


def memories(session: Session) -> Sequence[Row[*tuple[Any, ...]]]:
    """What is remembered of all: id, above, below, scaled_at, reason, checked_at."""
    row = AutoscalerRow.__table__.c  # type: ignore[attr-defined]
    columns = (row.deployment_id, row.above, row.below, row.scaled_at, row.reason, row.checked_at)
    return session.connection().execute(select_columns(*columns)).all()


def remember(session: Session, memory: Mapping[str, Mapping[str, Any]]) -> None:
    """Replace what is remembered of these deployments, by the names of the row's fields."""
    known = _known_ids(session, memory)
    _write(session, AutoscalerRow, [{"deployment_id": id, **memory[id]} for id in memory if id not in known])
    changed = [{"key": id, **memory[id]} for id in known]
    if changed:
        names = [name for name in changed[0] if name != "key"]
        statement = update(AutoscalerRow).where(col(AutoscalerRow.deployment_id) == bindparam("key"))
        session.connection().execute(statement.values({name: bindparam(name) for name in names}), changed)


def _known_ids(session: Session, ids: Iterable[str]) -> set[str]:
    wanted, known = list(ids), set[str]()
    for start in range(0, len(wanted), _CHUNK):
        some = col(AutoscalerRow.deployment_id).in_(wanted[start : start + _CHUNK])
        known.update(session.exec(select(AutoscalerRow.deployment_id).where(some)))
    return known


def fresh_metrics(session: Session, now: datetime, deployment_id: str | None = None) -> Sequence[Row[*tuple[Any, ...]]]:
    """What replicas said lately: deployment_id, replica, at, running, waiting, kv_cache, gpu_utilisation."""
    row = ReplicaMetricsRow.__table__.c  # type: ignore[attr-defined]
    columns = (row.deployment_id, row.replica, row.at, row.running, row.waiting, row.kv_cache, row.gpu_utilisation)
    query = select_columns(*columns).where(row.at > now - FRESH)
    if deployment_id is not None:
        query = query.where(row.deployment_id == deployment_id)
    return session.connection().execute(query).all()


def record_metrics(session: Session, rows: Sequence[ReplicaMetricsRow]) -> None:
    """Replace what replicas said last."""
    forget_replicas(session, {(r.deployment_id, r.replica) for r in rows})
    _write(session, ReplicaMetricsRow, [r.model_dump() for r in rows])


def measured_replicas(session: Session) -> set[tuple[str, str]]:
    """Every (deployment, replica) of which something is kept."""
    query = select(ReplicaMetricsRow.deployment_id, ReplicaMetricsRow.replica)
    return {(id, name) for id, name in session.exec(query)}


def forget_replicas(session: Session, gone: Collection[tuple[str, str]]) -> None:
    """Remove what these said."""
    if gone:
        one = and_(
            col(ReplicaMetricsRow.deployment_id) == bindparam("id"), col(ReplicaMetricsRow.replica) == bindparam("name")
        )  # fmt: skip
        keys = [{"id": id, "name": name} for id, name in gone]
        session.connection().execute(delete(ReplicaMetricsRow).where(one), keys)


def first_token_histograms(session: Session, minute: datetime) -> Sequence[Row[*tuple[Any, ...]]]:
    """Deployment and its histogram of that minute, for all that answered anything in it."""
    row = MinuteRow.__table__.c  # type: ignore[attr-defined]
    return session.connection().execute(select_columns(row.deployment_id, row.ttft).where(row.minute == minute)).all()


def prune(session: Session) -> None:
    """Forget deployments that are gone."""
    gone = select(DeploymentRow.id).where(col(DeploymentRow.deleted_at).is_not(None))
    for table in (AutoscalerRow, ReplicaMetricsRow):
        session.connection().execute(delete(table).where(col(table.deployment_id).in_(gone)))


def _write(session: Session, table: type[SQLModel], rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        session.connection().execute(insert(table), list(rows))
