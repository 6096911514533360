from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.store.database import Database
from tests.fakes.handler_server import HandlerServer
from tests.fakes.job_yard import Yard, new_yard, serve


@pytest.fixture
def empty_yard(store: Database) -> Yard:
    """The store of a yard, without a gateway."""
    return new_yard(store)


@pytest.fixture
def yard(empty_yard: Yard, tmp_path: Path) -> Iterator[Yard]:
    """A gateway that accepts and dispatches jobs."""
    with serve(empty_yard, tmp_path) as served:
        yield served


@pytest.fixture
def new_server() -> Iterator[Callable[[], HandlerServer]]:
    made: list[HandlerServer] = []

    def make() -> HandlerServer:
        made.append(HandlerServer())
        return made[-1]

    yield make
    for server in made:
        server.close()


@pytest.fixture
def server(new_server: Callable[[], HandlerServer]) -> HandlerServer:
    return new_server()
