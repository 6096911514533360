"""Queries about bytes that left for the public internet, per object and hour. Prices nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import Table, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, col

from engine.store.ledger import ignoring_known
from engine.store.storage_tables import EgressMonthRow, EgressRow

_TABLE: Table = EgressRow.__table__  # type: ignore[attr-defined]
_MONTHS: Table = EgressMonthRow.__table__  # type: ignore[attr-defined]


class Sent(NamedTuple):
    """Bytes of one object that left."""

    object_id: str
    org_id: str
    key_id: str | None
    sent_bytes: int


def add(session: Session, sent: Iterable[Sent], hour: int, now: datetime) -> None:
    """Count bytes for an hour."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    rows = [
        {"object_id": s.object_id, "hour": hour, "org_id": s.org_id, "key_id": s.key_id, "sent_bytes": s.sent_bytes,
         "metered_bytes": 0, "last_at": now}
        for s in sorted(sent)
    ]  # fmt: skip
    statement = insert(_TABLE)
    more = statement.on_conflict_do_update(
        index_elements=["object_id", "hour"],
        set_={"sent_bytes": _TABLE.c.sent_bytes + statement.excluded.sent_bytes, "last_at": statement.excluded.last_at},
    )
    for row in rows:
        session.connection().execute(more, row)


def unmetered(session: Session, before_hour: int, *, limit: int) -> Sequence[EgressRow]:
    """Rows of hours that are over, with bytes that nobody metered; oldest first, locked."""
    e = EgressRow
    query = select(e).where(col(e.metered_bytes) < col(e.sent_bytes), col(e.hour) < before_hour)
    query = query.order_by(col(e.hour), col(e.object_id)).limit(limit).with_for_update()
    return session.execute(query).scalars().all()


def month(session: Session, org_id: str, name: str) -> EgressMonthRow:
    """What of an organisation's month is metered, locked; a new one begins at zero."""
    session.connection().execute(
        ignoring_known(session, _MONTHS), {"org_id": org_id, "month": name, "metered_bytes": 0}
    )
    query = select(EgressMonthRow).where(col(EgressMonthRow.org_id) == org_id, col(EgressMonthRow.month) == name)
    row: EgressMonthRow = session.execute(query.with_for_update()).scalar_one()
    return row


def sent_since(session: Session, org_id: str, hour: int) -> int:
    """Bytes an organisation's objects sent in this hour and later ones."""
    query = select(func.coalesce(func.sum(EgressRow.sent_bytes), 0))
    return int(session.execute(query.where(col(EgressRow.org_id) == org_id, col(EgressRow.hour) >= hour)).scalar_one())


def prune(session: Session, before_hour: int) -> None:
    """Forget hours long past that are metered: the usage records have them."""
    e = EgressRow
    session.execute(delete(e).where(col(e.hour) < before_hour, col(e.metered_bytes) == col(e.sent_bytes)))
