"""What all tests share: databases, and how many examples properties are tried on.

Which database a test runs on is said by the fixture it asks for:

- `database` (tests/engine/conftest.py): its subject is what a database does, so every run has it on both kinds;
- `store`, `database_url`, `new_database_url`: its way through the product ends in SQL, so it runs on SQLite, and once
  more in `make postgres` (`STACKYARD_TEST_DATABASE=postgres`), where it must find the same;
- `new_sqlite_url`: rows are only there for something else to be tested, so SQLite is enough.

End-to-end tests start whole installations: `make postgres` repeats those that are marked `postgres` and no others.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
import structlog
from hypothesis import HealthCheck, settings

from engine.store.database import Database
from engine.store.migrate import migrate
from tests.fakes.dockerd import DockerDaemon, DockerMissing
from tests.fakes.postgres import PostgresCluster, PostgresMissing, find_binaries

# Few in `make test`, many in `make fuzz` (`--hypothesis-profile=fuzz`). How long an example takes says how busy the
# machine is, so neither gives up over it.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("quick", UNHURRIED)
settings.register_profile("fuzz", UNHURRIED, max_examples=1050, print_blob=True)
settings.load_profile("quick")

KIND = os.environ.get("STACKYARD_TEST_DATABASE", "sqlite")
if KIND not in ("sqlite", "postgres"):
    raise pytest.UsageError(f"STACKYARD_TEST_DATABASE={KIND}: it must be sqlite or postgres")

CHOSEN = frozenset({"new_database_url", "new_bare_database_url"})
"""Fixtures whose databases are of the kind this run is for; `store` and `database_url` are made from them."""


def pytest_configure(config: pytest.Config) -> None:
    """Logged failures as plain text: structlog's own renderer draws every variable, for seconds."""
    console = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*structlog.get_config()["processors"][:-1], console])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A run for PostgreSQL leaves out the tests that would do the same again."""
    if KIND == "sqlite":
        return
    kept = [item for item in items if _differs_on_postgres(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
    items[:] = kept


def _differs_on_postgres(item: pytest.Item) -> bool:
    if item.get_closest_marker("e2e") and not item.get_closest_marker("postgres"):
        return False
    return bool(CHOSEN & set(getattr(item, "fixturenames", ())))


def pytest_collection_finish(session: pytest.Session) -> None:
    """What was imported and collected stays: a fixture that collects garbage need not look through it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresCluster]:
    try:
        binaries = find_binaries()
    except PostgresMissing as err:
        pytest.skip(str(err))
    with PostgresCluster(binaries) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def dockerd() -> Iterator[DockerDaemon]:
    """A private Docker daemon; images for it come from `tests.fakes.images`."""
    daemon = DockerDaemon()
    try:
        daemon.__enter__()
    except DockerMissing as err:
        pytest.skip(str(err))
    with closing(daemon):
        yield daemon


@pytest.fixture(scope="session")
def new_sqlite_url(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], str]:
    """Makes migrated, empty SQLite files: copies of one, for migrating takes longer than most tests."""
    empty = tmp_path_factory.mktemp("template") / "empty.db"
    _migrate(f"sqlite:///{empty}")

    def copy() -> str:
        path = tmp_path_factory.mktemp("database") / "stackyard.db"
        path.write_bytes(empty.read_bytes())
        return f"sqlite:///{path}"

    return copy


@pytest.fixture(scope="session")
def new_postgres_url(postgres: PostgresCluster) -> Callable[[], str]:
    """Makes migrated, empty databases on PostgreSQL: copies of one."""
    template = postgres.new_database()
    _migrate(template)
    return lambda: postgres.new_database(template.rpartition("/")[2])


@pytest.fixture(scope="session")
def new_database_url(request: pytest.FixtureRequest) -> Callable[[], str]:
    """Makes migrated, empty databases of the kind this run is for; returns their URLs."""
    factory: Callable[[], str] = request.getfixturevalue(f"new_{KIND}_url")
    return factory


@pytest.fixture(scope="session")
def new_bare_database_url(request: pytest.FixtureRequest) -> Callable[[], str]:
    """Makes databases without tables of the kind this run is for; "" is the SQLite file of an installation's folder."""
    if KIND == "postgres":
        cluster: PostgresCluster = request.getfixturevalue("postgres")
        return cluster.new_database
    return lambda: ""


@pytest.fixture
def database_url(new_database_url: Callable[[], str]) -> str:
    """URL of a migrated, empty database of the kind this run is for."""
    return new_database_url()


@pytest.fixture
def store(database_url: str) -> Iterator[Database]:
    """A migrated, empty database of the kind this run is for."""
    database = Database(database_url)
    yield database
    database.close()


def _migrate(url: str) -> None:
    database = Database(url)
    migrate(database)
    database.close()
