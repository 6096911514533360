"""Databases for tests of the store: every test that asks for `database` runs on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.store.database import Database
from engine.store.migrate import migrate
from tests.fakes.clock import FakeClock
from tests.fakes.postgres import PostgresCluster


@pytest.fixture(params=["sqlite", "postgres"])
def bare_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/stackyard.db"
    cluster: PostgresCluster = request.getfixturevalue("postgres")
    return cluster.new_database()


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A migrated, empty database."""
    if request.param == "sqlite":
        made = Database(f"sqlite:///{tmp_path}/stackyard.db")
        migrate(made)
    else:
        cluster: PostgresCluster = request.getfixturevalue("postgres")
        made = Database(cluster.new_database(request.getfixturevalue("postgres_template")))
    yield made
    made.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()
