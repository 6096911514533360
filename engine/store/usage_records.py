"""Queries about usage records: stored in bulk, summed in bulk. A record is written once and never touched again.

Pricing marks whole batches, so a million records are priced without a million updates.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Context, Decimal
from typing import Any

from sqlalchemy import Table, and_, bindparam, func, insert, select, update
from sqlmodel import Session, col

from engine.store.ledger import CHUNK, ignoring_known
from engine.store.ledger_tables import ExactDecimal, UsageBatchRow, UsageMeterRow, UsageRecordRow

_RECORDS: Table = UsageRecordRow.__table__  # type: ignore[attr-defined]
_METERS: Table = UsageMeterRow.__table__  # type: ignore[attr-defined]
_BATCHES: Table = UsageBatchRow.__table__  # type: ignore[attr-defined]
_COLUMNS = tuple(column.name for column in _RECORDS.columns)
_EXACT = Context(prec=120)

Values = tuple[Any, ...]
"""One record's columns, in the table's order."""

MeterId = tuple[str, str, str, str]
"""Organisation, deployment, key, sku; empty text for none."""


@dataclass(frozen=True)
class Stored:
    """What became of records that arrived together.

    Attributes:
        differing: source ids that were known with other content: the first one counts, the sender has a fault.
    """

    inserted: int
    duplicates: int
    differing: tuple[str, ...] = ()


def insert_batch(session: Session, batch_id: str, records: Sequence[Values], now: datetime) -> Stored:
    """Store what is new, as one batch to be priced; known source ids are left out."""
    if not records:
        return Stored(0, 0)
    session.flush()
    inserted = _copy(session, records) if _is_postgresql(session) else _insert(session, records)
    if inserted:
        row = {"id": batch_id, "records": inserted, "ingested_at": now, "rated_at": None}
        session.connection().execute(insert(_BATCHES), [row])
    duplicates = len(records) - inserted
    return Stored(inserted, duplicates, _differing(session, batch_id, records) if duplicates else ())


def _is_postgresql(session: Session) -> bool:
    return session.get_bind().dialect.name == "postgresql"


def _copy(session: Session, records: Sequence[Values]) -> int:
    """COPY takes no duplicates, so it goes through a table of its own."""
    listed = ", ".join(_COLUMNS)
    cursor = session.connection().connection.cursor()
    try:
        cursor.execute(
            "CREATE TEMPORARY TABLE IF NOT EXISTS usage_incoming (LIKE usage_records INCLUDING DEFAULTS) "
            "ON COMMIT DELETE ROWS"
        )
        cursor.execute("DELETE FROM usage_incoming")
        with cursor.copy(f"COPY usage_incoming ({listed}) FROM STDIN") as copy:
            for record in records:
                copy.write_row(record)
        cursor.execute(
            f"INSERT INTO usage_records ({listed}) SELECT {listed} FROM usage_incoming ON CONFLICT DO NOTHING"
        )
        return int(cursor.rowcount)
    finally:
        cursor.close()


def _insert(session: Session, records: Sequence[Values]) -> int:
    inserted = 0
    statement = ignoring_known(session, _RECORDS)
    for start in range(0, len(records), CHUNK):
        rows = [dict(zip(_COLUMNS, record, strict=True)) for record in records[start : start + CHUNK]]
        inserted += session.connection().execute(statement, rows).rowcount
    return inserted


def _differing(session: Session, batch_id: str, records: Sequence[Values]) -> tuple[str, ...]:
    """Of records that were known before: those whose content is another."""
    compared = [_COLUMNS.index(name) for name in ("org_id", "key_id", "deployment_id", "sku", "quantity")]
    wanted = {(r[0], r[1]): r for r in records}
    ids = sorted({str(record[0]) for record in records})
    found: list[str] = []
    for start in range(0, len(ids), CHUNK):
        r = _RECORDS.c
        query = select(_RECORDS).where(r.source_id.in_(ids[start : start + CHUNK]), r.batch_id != batch_id)
        for stored in session.connection().execute(query):
            sent = wanted.get((stored[0], stored[1]))
            if sent is None or any(stored[i] != sent[i] for i in compared):
                found.append(stored[0])
    return tuple(sorted(set(found)))


def claim(session: Session, *, most_records: int) -> Sequence[UsageBatchRow]:
    """Batches that nobody priced, oldest first, together at most so many records (or one batch); locked.

    Batches that another process holds are left to it.
    """
    b = UsageBatchRow
    query = select(b).where(col(b.rated_at).is_(None)).order_by(col(b.ingested_at), col(b.id)).limit(1000)
    session.flush()
    rows = session.execute(query.with_for_update(skip_locked=True)).scalars().all()
    taken: list[UsageBatchRow] = []
    for row in rows:
        if taken and sum(t.records for t in taken) + row.records > most_records:
            break
        taken.append(row)
    return taken


def mark_rated(session: Session, batches: Iterable[UsageBatchRow], now: datetime) -> None:
    for batch in batches:
        batch.rated_at = now
    session.flush()


def sums(session: Session, batch_ids: Sequence[str]) -> Sequence[tuple[MeterId, int, str, Decimal]]:
    """Quantities of these batches: meter, hour, price, sum; exact on every database."""
    r = _RECORDS.c
    group = (r.org_id, r.deployment_id, r.key_id, r.sku, r.hour, r.price_id)
    if _is_postgresql(session):
        total: Any = func.sum(r.quantity, type_=ExactDecimal())
    else:
        _teach_exact_sum(session)
        total = func.exact_sum(r.quantity, type_=ExactDecimal())
    query = select(*group, total).where(r.batch_id.in_(batch_ids)).group_by(*group)
    return [
        ((o, d, k, s), hour, price, amount) for o, d, k, s, hour, price, amount in session.connection().execute(query)
    ]


class _ExactSum:
    """SQLite's SUM makes binary fractions of decimals; this one adds them as they are written."""

    def __init__(self) -> None:
        self._total = Decimal(0)

    def step(self, value: Any) -> None:
        self._total = _EXACT.add(self._total, Decimal(value))

    def finalize(self) -> str:
        return format(self._total, "f")


def _teach_exact_sum(session: Session) -> None:
    connection = session.connection().connection.driver_connection
    assert isinstance(connection, sqlite3.Connection)
    connection.create_aggregate("exact_sum", 1, _ExactSum)  # type: ignore[arg-type]  # it calls step with one value


def lock_meters(session: Session, meters: Iterable[MeterId]) -> dict[MeterId, tuple[Decimal, Decimal, int]]:
    """Running totals (quantity, dollars, micro-dollars posted), locked in order; new ones begin at zero."""
    wanted = sorted(set(meters))
    zero = {"quantity": Decimal(0), "total_usd": Decimal(0), "posted_microdollars": 0}
    m = _METERS.c
    key = (m.org_id, m.deployment_id, m.key_id, m.sku)
    names = ("org_id", "deployment_id", "key_id", "sku")
    rows = [dict(zip(names, meter, strict=True)) | zero for meter in wanted]
    found: dict[MeterId, tuple[Decimal, Decimal, int]] = {}
    for start in range(0, len(rows), CHUNK):
        session.connection().execute(ignoring_known(session, _METERS), rows[start : start + CHUNK])
    orgs = sorted({meter[0] for meter in wanted})
    asked = set(wanted)
    for start in range(0, len(orgs), CHUNK):
        query = select(_METERS).where(m.org_id.in_(orgs[start : start + CHUNK])).order_by(*key).with_for_update()
        for row in session.connection().execute(query):
            if (meter := (row[0], row[1], row[2], row[3])) in asked:
                found[meter] = (row.quantity, row.total_usd, row.posted_microdollars)
    return found


def write_meters(session: Session, meters: Iterable[tuple[MeterId, Decimal, Decimal, int]]) -> None:
    """The totals after a batch."""
    m = _METERS.c
    this = and_(m.org_id == bindparam("o"), m.deployment_id == bindparam("d"), m.key_id == bindparam("k"))
    statement = update(_METERS).where(this, m.sku == bindparam("s"))
    statement = statement.values(quantity=bindparam("q"), total_usd=bindparam("t"), posted_microdollars=bindparam("p"))
    rows = [
        {"o": o, "d": d, "k": k, "s": s, "q": quantity, "t": total, "p": posted}
        for (o, d, k, s), quantity, total, posted in meters
    ]
    if rows:
        session.connection().execute(statement, rows)


def meters_of(session: Session, org_id: str) -> Sequence[UsageMeterRow]:
    """An organisation's running totals."""
    m = UsageMeterRow
    query = select(m).where(col(m.org_id) == org_id).order_by(col(m.deployment_id), col(m.key_id), col(m.sku))
    return session.execute(query).scalars().all()


def unrated(session: Session) -> int:
    """Records that wait to be priced."""
    query = select(func.coalesce(func.sum(UsageBatchRow.records), 0)).where(col(UsageBatchRow.rated_at).is_(None))
    return int(session.connection().execute(query).scalar_one())
