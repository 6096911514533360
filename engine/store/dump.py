"""All rows of a database as lines of JSON, and back: between SQLite and PostgreSQL too. Writes no files.

Not the databases' own dump tools: an installation may move from one kind to the other, and needs no client program.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    SmallInteger,
    Table,
    func,
    select,
    text,
)
from sqlalchemy.orm import Session as OrmSession
from sqlalchemy.types import JSON, TypeEngine

from engine.model.errors import Conflict

VERSION_TABLE = "alembic_version"
_BATCH = 500
_BATCH_OF_CONTENTS = 4
"""Rows with bytes in them are read and written so many at a time: one may be tens of megabytes."""


def reflect(session: OrmSession) -> list[Table]:
    """The database's tables as they are, those that others refer to first; the migrations' own table is left out."""
    found = MetaData()
    found.reflect(session.connection())
    return [table for table in found.sorted_tables if table.name != VERSION_TABLE]


def revision(session: OrmSession) -> str:
    """The migration the database stands at."""
    return str(session.connection().execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar_one())


def rows(session: OrmSession, table: Table) -> Iterator[bytes]:
    """One line of JSON per row, without its newline. Ordered by primary key, read in batches."""
    result = session.connection().execution_options(yield_per=_batch_of(table)).execute(
        select(table).order_by(*table.primary_key.columns)
    )  # fmt: skip
    for row in result.mappings():
        values = {column.name: _plain(row[column.name]) for column in table.columns}
        yield json.dumps(values, separators=(",", ":"), ensure_ascii=False).encode()


def require_empty(session: OrmSession, tables: Iterable[Table]) -> None:
    """Raise Conflict if any table has a row: a restore never mixes two installations."""
    for table in tables:
        if session.connection().execute(select(func.count()).select_from(table)).scalar_one():
            raise Conflict(
                f"the database is not empty (table {table.name} has rows): restore into a new one, by another "
                "STACKYARD_DATABASE_URL or STACKYARD_DATA_DIR"
            )


def load(session: OrmSession, table: Table, lines: Iterable[bytes]) -> int:
    """Insert rows that `rows` wrote; returns how many. A column the table lacks is an error, never dropped."""
    count, batch = 0, list[dict[str, Any]]()
    for line in lines:
        given: dict[str, Any] = json.loads(line)
        unknown = set(given) - {column.name for column in table.columns}
        if unknown:
            raise Conflict(
                f"table {table.name} has no column {', '.join(sorted(unknown))}: the backup is of another kind"
            )
        batch.append({name: _value(table.columns[name].type, value, session) for name, value in given.items()})
        count += 1
        if len(batch) == _batch_of(table):
            session.connection().execute(table.insert(), batch)
            batch.clear()
    if batch:
        session.connection().execute(table.insert(), batch)
    _advance_sequence(session, table)
    return count


def _batch_of(table: Table) -> int:
    has_contents = any(isinstance(column.type, LargeBinary) for column in table.columns)
    return _BATCH_OF_CONTENTS if has_contents else _BATCH


def _plain(value: Any) -> Any:
    """A column's value as JSON can carry it."""
    match value:
        case datetime():
            aware = value if value.tzinfo else value.replace(tzinfo=UTC)
            return aware.astimezone(UTC).isoformat(timespec="microseconds")
        case Decimal():
            return str(value)
        case bytes() | memoryview():
            return base64.b64encode(bytes(value)).decode()
        case _:
            return value


def _value(kind: TypeEngine[Any], value: Any, session: OrmSession) -> Any:
    """The value for a column of this kind. SQLite's times are naive UTC."""
    if value is None:
        return None
    if isinstance(kind, DateTime):
        at = datetime.fromisoformat(value)
        return at.replace(tzinfo=None) if session.get_bind().dialect.name == "sqlite" else at
    if isinstance(kind, LargeBinary):
        return base64.b64decode(value)
    if isinstance(kind, Boolean):
        return bool(value)
    if isinstance(kind, Numeric) and isinstance(value, str):
        return Decimal(value)
    if isinstance(kind, JSON) or not isinstance(kind, Integer | BigInteger | SmallInteger):
        return value
    return int(value)


def _advance_sequence(session: OrmSession, table: Table) -> None:
    """PostgreSQL gives out numbers from a sequence that explicit values do not move."""
    if session.get_bind().dialect.name != "postgresql":
        return
    for column in table.primary_key.columns:
        name = session.connection().execute(
            text("SELECT pg_get_serial_sequence(:table, :column)"), {"table": table.name, "column": column.name}
        ).scalar()  # fmt: skip
        if name:
            top = session.connection().execute(select(func.max(column))).scalar()
            if top is not None:
                session.connection().execute(text("SELECT setval(:name, :top)"), {"name": name, "top": top})
