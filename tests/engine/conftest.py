"""Databases for tests of the store: every test that asks for `database` runs on SQLite and on PostgreSQL.

And an engine's loop with a passphrase's salt: deriving a key takes a quarter of a second, so it is done once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.deploy.command import EngineLoop
from engine.deploy.secrets import new_salt
from engine.store.database import Database
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
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """A migrated, empty database."""
    new_url: Callable[[], str] = request.getfixturevalue(f"new_{request.param}_url")
    made = Database(new_url())
    yield made
    made.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="session")
def command_loop() -> Iterator[EngineLoop]:
    """The loop commands run on."""
    loop = EngineLoop()
    yield loop
    loop.close()


@pytest.fixture(scope="session")
def salt(command_loop: EngineLoop) -> str:
    """A salt for the passphrase `x`; the loop knows its key."""
    return new_salt("x", command_loop.keys)
