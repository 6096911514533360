"""Brings a database to this version's tables, once, even when several processes start together. Holds no revisions.

A new revision: change `tables.py`, then `python -m engine.store.migrate "what changed"`, then read what it wrote.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util.exc import CommandError
from sqlalchemy import Connection, Engine, text

from engine.model.errors import InvalidSpec
from engine.store.database import Database

_MIGRATION_LOCK = 0x57AC_CA1E  # any number that no other advisory lock of this system uses


def migrate(database: Database, revision: str = "head") -> None:
    """Apply the revisions the database lacks, in one transaction that no second process can enter.

    Args:
        revision: where to stop: a backup is loaded into the tables it was made from.

    Raises:
        InvalidSpec: the database, or the revision asked for, is of a newer version of Stackyard.
    """
    with _exclusive(database).begin() as connection:
        _lock(connection)
        try:
            command.upgrade(_config(connection), revision)
        except CommandError as err:
            raise InvalidSpec(f"the database is of a newer version of Stackyard ({err}): use that version") from err


def write_revision(message: str) -> None:
    """Write a new revision: the difference between the last one and `tables.py`."""
    with tempfile.TemporaryDirectory() as folder:
        database = Database(f"sqlite:///{folder}/scratch.db")
        migrate(database)
        with _exclusive(database).begin() as connection:
            command.revision(_config(connection), message=message, autogenerate=True)
        database.close()


def _exclusive(database: Database) -> Engine:
    return database.engine.execution_options(stackyard_writes=True)


def _lock(connection: Connection) -> None:
    """On SQLite the transaction began IMMEDIATE: that is the lock."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})


def _config(connection: Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    config.set_main_option("file_template", "%%(rev)s_%%(slug)s")
    config.attributes["connection"] = connection
    return config


if __name__ == "__main__":
    write_revision(" ".join(sys.argv[1:]) or "change")
