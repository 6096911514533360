"""The three kinds of state backend, each empty: every test that asks for `backend` runs on all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from engine.deploy.backend.open import open_backend
from engine.deploy.backend.stacks import Backend
from tests.fakes.s3_server import S3Missing, S3Server, find_binary

KINDS = [
    "file",
    # the first test that needs the S3 server may have to build it, or to wait until another process has
    pytest.param("s3", marks=[pytest.mark.integration, pytest.mark.timeout(900)]),
    pytest.param("postgres", marks=pytest.mark.integration),
]


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    try:
        program = find_binary()
    except S3Missing as err:
        pytest.skip(str(err))
    with S3Server(program) as server:
        yield server


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def place(request: pytest.FixtureRequest, kind: str, tmp_path: Path) -> tuple[str, Mapping[str, str]]:
    """URL and environment of an empty backend."""
    if kind == "s3":
        server: S3Server = request.getfixturevalue("s3_server")
        url = f"s3://{server.new_bucket()}/deep/down?endpoint={server.endpoint}&s3ForcePathStyle=true&awssdk=v2"
        return url, server.environment
    if kind == "postgres":
        database: str = request.getfixturevalue("postgres").new_database()
        return database.replace("postgresql+psycopg://", "postgres://") + "?sslmode=disable", {}
    return f"file://{tmp_path}", {}


@pytest.fixture
def opener(place: tuple[str, Mapping[str, str]], tmp_path: Path) -> Callable[[], Backend]:
    """Opens one place again and again, as processes do."""
    url, env = place
    return lambda: open_backend(url, tmp_path, env)


@pytest.fixture
def backend(opener: Callable[[], Backend]) -> Backend:
    return opener()
