"""Databases for tests: every test that asks for `database` runs on SQLite and on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.store.database import Database
from engine.store.migrate import migrate
from tests.fakes.clock import FakeClock
from tests.fakes.postgres import PostgresCluster, PostgresMissing, find_binaries


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresCluster]:
    try:
        binaries = find_binaries()
    except PostgresMissing as err:
        pytest.skip(str(err))
    with PostgresCluster(binaries) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def postgres_template(postgres: PostgresCluster) -> str:
    """Name of a migrated, empty database."""
    url = postgres.new_database()
    database = Database(url)
    migrate(database)
    database.close()
    return url.rpartition("/")[2]


@pytest.fixture(params=["sqlite", "postgres"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of an empty database without tables."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/stackyard.db"
    cluster: PostgresCluster = request.getfixturevalue("postgres")
    return cluster.new_database()


@pytest.fixture(params=["sqlite", "postgres"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A migrated, empty database."""
    if request.param == "sqlite":
        yield from _open(f"sqlite:///{tmp_path}/stackyard.db", migrate)
    else:
        cluster: PostgresCluster = request.getfixturevalue("postgres")
        template: str = request.getfixturevalue("postgres_template")
        yield from _open(cluster.new_database(template), lambda _: None)


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Database]:
    """A migrated, empty SQLite database, for tests of what stands above the store."""
    yield from _open(f"sqlite:///{tmp_path}/stackyard.db", migrate)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def _open(url: str, prepare: Callable[[Database], None]) -> Iterator[Database]:
    database = Database(url)
    prepare(database)
    yield database
    database.close()
