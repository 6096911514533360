"""Brings the installation's database up to date and ends: `python -m api.migrate_process`."""

from __future__ import annotations

import sys

from sqlalchemy.exc import SQLAlchemyError

from api import process
from engine.store import migrate
from engine.store.database import Database


def main() -> None:
    """Migrate; a database that does not answer is one sentence and exit code 1."""
    settings = process.begin("migrate").settings
    database = Database(settings.resolved_database_url)
    try:
        migrate.migrate(database)
    except SQLAlchemyError as err:
        sys.exit(f"the database does not answer: {str(err.__cause__ or err).strip()}; check STACKYARD_DATABASE_URL")
    finally:
        database.close()


if __name__ == "__main__":
    main()
