"""Queries about service levels: the last measurement of each deployment, and the log of missed targets."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete
from sqlmodel import Session, and_, col, func, or_, select

from engine.store.traffic_tables import SlaBreachRow, SlaStateRow


def state_of(session: Session, deployment_id: str) -> SlaStateRow | None:
    """What was measured last; None: nothing yet."""
    return session.get(SlaStateRow, deployment_id)


def states(session: Session) -> dict[str, SlaStateRow]:
    """Deployment -> what was measured last, of all that ever were."""
    return {row.deployment_id: row for row in session.exec(select(SlaStateRow)).all()}


def record(
    session: Session, deployment_id: str, *, now: datetime, source: str, ttft_ms: float | None,
    throughput_tps: float | None,
) -> None:  # fmt: skip
    """Note a measurement; what it did not measure keeps its last value."""
    row = session.get(SlaStateRow, deployment_id)
    if row is None:
        row = SlaStateRow(deployment_id=deployment_id, measured_at=now, source=source)
    row.measured_at, row.source = now, source
    row.last_ttft_ms = row.last_ttft_ms if ttft_ms is None else ttft_ms
    row.last_throughput_tps = row.last_throughput_tps if throughput_tps is None else throughput_tps
    session.add(row)
    session.flush()


def add_breach(session: Session, row: SlaBreachRow) -> None:
    session.add(row)
    session.flush()


def breaches(
    session: Session, deployment_id: str, *, limit: int = 20, after: str | None = None
) -> Sequence[SlaBreachRow]:
    """A page of the log, newest first, [n], n ≤ limit; an id that is not in it starts from the beginning."""
    query = select(SlaBreachRow).where(SlaBreachRow.deployment_id == deployment_id)
    last = session.get(SlaBreachRow, after) if after else None
    if last is not None and last.deployment_id == deployment_id:
        older = col(SlaBreachRow.at) < last.at
        query = query.where(or_(older, and_(col(SlaBreachRow.at) == last.at, col(SlaBreachRow.id) > last.id)))
    return session.exec(query.order_by(col(SlaBreachRow.at).desc(), col(SlaBreachRow.id)).limit(limit)).all()


def breaches_at(session: Session, deployment_id: str, moment: datetime) -> Sequence[SlaBreachRow]:
    """What one measurement found missed."""
    query = select(SlaBreachRow).where(SlaBreachRow.deployment_id == deployment_id, SlaBreachRow.at == moment)
    return session.exec(query).all()


def count_since(session: Session, deployment_id: str, since: datetime) -> int:
    """How many targets were missed after `since`."""
    query = select(func.count()).select_from(SlaBreachRow)
    return session.exec(query.where(SlaBreachRow.deployment_id == deployment_id, col(SlaBreachRow.at) > since)).one()


def prune(session: Session, before: datetime) -> None:
    """Forget breaches of long ago, and what was measured last of deployments that nobody measures any more."""
    session.connection().execute(delete(SlaBreachRow).where(col(SlaBreachRow.at) < before))
    session.connection().execute(delete(SlaStateRow).where(col(SlaStateRow.measured_at) < before))
