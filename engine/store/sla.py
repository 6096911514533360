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


def record(session: Session, measured: Sequence[SlaStateRow]) -> None:
    """Note measurements, [n], of as many deployments; a value that was not measured (None) stays as it was."""
    query = select(SlaStateRow).where(col(SlaStateRow.deployment_id).in_([row.deployment_id for row in measured]))
    known = {row.deployment_id: row for row in session.exec(query).all()}
    for row in measured:
        before = known.get(row.deployment_id)
        if before is None:
            session.add(row)
            continue
        before.measured_at, before.source = row.measured_at, row.source
        before.last_ttft_ms = before.last_ttft_ms if row.last_ttft_ms is None else row.last_ttft_ms
        if row.last_throughput_tps is not None:
            before.last_throughput_tps = row.last_throughput_tps
    session.flush()


def add_breach(session: Session, row: SlaBreachRow) -> None:
    session.add(row)


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
