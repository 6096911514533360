"""Connections to SQLite (WAL) or PostgreSQL by URL: one way to read and one way to write. Holds no queries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlmodel import Session

from engine.store import changes

BUSY_TIMEOUT_SECONDS = 10.0
"""How long a SQLite writer waits for another; writes are milliseconds, so this is only met on a stalled disk."""


class Database:
    """One database, shared by all threads of a process.

    `write()` transactions are serialised on SQLite from their first statement (BEGIN IMMEDIATE), so a read followed by
    a write in one transaction never meets SQLITE_BUSY half-way.
    """

    def __init__(self, url: str) -> None:
        self.url = normalise(url)
        self.engine: Engine = _create_engine(self.url)
        self._writing = self.engine.execution_options(stackyard_writes=True)
        # One state for all statements of a read: SQLite's transactions are that by themselves.
        self._reading = (
            self.engine if self.is_sqlite else self.engine.execution_options(isolation_level="REPEATABLE READ")
        )

    @property
    def is_sqlite(self) -> bool:
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A short transaction that sees one state of the database; nothing in it is kept."""
        with Session(self._reading, expire_on_commit=False, autoflush=False) as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction: committed at the block's end, with its change rows, or rolled back by an exception."""
        with Session(self._writing, expire_on_commit=False) as session:
            yield session
            changes.flush(session)
            session.commit()

    def close(self) -> None:
        """Close the pool's connections."""
        self.engine.dispose()


def normalise(url: str) -> str:
    """Name the driver this project installs where the URL leaves it open (`postgres://…` → `postgresql+psycopg://…`)."""
    parsed = make_url(url)
    if parsed.drivername in ("postgres", "postgresql"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    return parsed.render_as_string(hide_password=False)


def _create_engine(url: str) -> Engine:
    if make_url(url).get_backend_name() != "sqlite":
        return create_engine(url, pool_size=8, max_overflow=24, pool_pre_ping=True)
    engine = create_engine(
        url, pool_size=8, max_overflow=56, connect_args={"timeout": BUSY_TIMEOUT_SECONDS, "check_same_thread": False}
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    # The driver would begin by itself, deferred: a read could then not become a write.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    # With WAL, NORMAL is safe against kill -9; a power cut may cost the last moments, never consistency.
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.execute(f"PRAGMA busy_timeout={int(BUSY_TIMEOUT_SECONDS * 1000)}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("stackyard_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
