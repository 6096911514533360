"""PostgreSQL's own part: the official engine's table, keys and URL parameters."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from engine.deploy.backend.blobs import BackendError, Blobs
from engine.deploy.backend.open import open_backend
from engine.deploy.backend.postgres import _parameters
from engine.model.errors import StaleLease

LOCK = "locks/organization/golden/dev/a.json"


def allowed() -> None:
    return None


@pytest.fixture
def url(postgres: Any) -> str:
    return str(postgres.new_database()).replace("postgresql+psycopg://", "postgres://") + "?sslmode=disable"


@pytest.fixture
def connect(url: str) -> Callable[[str], Blobs]:
    return lambda more="": open_backend(url + more, Path("/"), {}).blobs


def rows(url: str, query: str) -> list[Any]:
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchall()  # type: ignore[call-overload,no-any-return]


@pytest.mark.integration
def test_rows_are_the_official_engines(url: str, connect: Callable[..., Blobs]) -> None:
    connect().put("stacks/golden/dev.json", b"\x00state")
    database = urlsplit(url).path.strip("/")
    ((key, data, age),) = rows(url, "SELECT key, data, now() - updated_at FROM pulumi_state")
    assert key == f"{database}/.pulumi/stacks/golden/dev.json"
    assert base64.b64decode(data["data"]) == b"\x00state"
    assert age.total_seconds() < 60
    columns = rows(url, "SELECT column_name, data_type FROM information_schema.columns WHERE table_name='pulumi_state'")
    assert dict(columns) == {"key": "text", "data": "json", "updated_at": "timestamp with time zone"}
    assert rows(url, "SELECT 1 FROM pg_indexes WHERE indexname = 'pulumi_state_key_prefix_idx'")


@pytest.mark.integration
def test_row_of_the_official_engine_is_read(url: str, connect: Callable[..., Blobs]) -> None:
    blobs = connect()
    database = urlsplit(url).path.strip("/")
    with psycopg.connect(url) as connection:
        connection.execute(
            "INSERT INTO pulumi_state (key, data) VALUES (%s, %s)",
            [f"{database}/.pulumi/stacks/golden/dev.json", '{"data":"c3RhdGU="}'],
        )
        connection.execute(
            "INSERT INTO pulumi_state (key, data) VALUES (%s, %s)", [f"{database}/.pulumi/bad", '{"data":"%%"}']
        )
    seen = blobs.get("stacks/golden/dev.json")
    assert seen is not None
    assert seen.data == b"state"
    blobs.replace("stacks/golden/dev.json", b"next", over=seen, check=allowed)
    with pytest.raises(BackendError, match="damaged"):
        blobs.get("bad")


@pytest.mark.integration
def test_table_of_ones_own(url: str, connect: Callable[..., Blobs]) -> None:
    connect("&table=My_State").put("a", b"1")
    connect("&table=my_state").put("b", b"2")
    assert rows(url, "SELECT count(*) FROM my_state") == [(2,)]
    with pytest.raises(BackendError, match="table"):
        connect("&table=x;drop")


@pytest.mark.integration
def test_many_may_make_the_table_at_once(connect: Callable[..., Blobs]) -> None:
    start, errors = threading.Barrier(6), list[Exception]()

    def make() -> None:
        start.wait(60)
        try:
            connect("&table=raced").put("a", b"1")
        except BackendError as err:
            errors.append(err)

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors


@pytest.mark.integration
def test_lock_cannot_be_taken_away_while_its_holder_writes(connect: Callable[..., Blobs]) -> None:
    """Whoever breaks the lock waits for the write, or the write does not happen."""
    blobs = connect()
    blobs.put(LOCK, b"{}")
    blobs.put("state", b"first")
    broken = threading.Event()

    def break_lock() -> None:
        connect().delete(LOCK)
        broken.set()

    breaker = threading.Thread(target=break_lock)

    def during() -> None:
        breaker.start()
        assert not broken.wait(0.3)

    blobs.replace("state", b"second", over=blobs.get("state"), check=during, guard=LOCK)
    breaker.join(60)
    assert broken.is_set()
    with pytest.raises(StaleLease):
        blobs.replace("state", b"third", over=blobs.get("state"), check=allowed, guard=LOCK)


@pytest.mark.integration
def test_server_that_dropped_its_connections_is_met_anew(url: str, connect: Callable[..., Blobs]) -> None:
    blobs = connect()
    blobs.put("a", b"1")
    rows(
        url,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE pid <> pg_backend_pid() AND datname = current_database()",
    )
    assert blobs.get("a") is not None


def test_url_comes_before_the_environment() -> None:
    told = _parameters(
        urlsplit("postgres://me:p%40ss@db:5433/state?sslmode=verify-full&search_path=a b"),
        {"sslmode": "verify-full", "search_path": "a b"},
        {"PGUSER": "other", "PGPASSWORD": "other", "PGAPPNAME": "app"},
    )
    assert (told["host"], told["port"], told["user"], told["password"]) == ("db", "5433", "me", "p@ss")
    assert (told["dbname"], told["sslmode"], told["application_name"]) == ("state", "verify-full", "app")
    assert told["options"] == "-c search_path=a\\ b"


def test_connection_is_encrypted_unless_told_otherwise() -> None:
    assert _parameters(urlsplit("postgres://"), {}, {"PGHOST": "db"})["sslmode"] == "require"
    assert _parameters(urlsplit("postgres://"), {}, {"PGHOST": "db"})["host"] == "db"


def test_unreachable_server_is_named_without_its_password() -> None:
    with pytest.raises(BackendError, match=r"127\.0\.0\.1:1/") as caught:
        open_backend("postgres://me:hush@127.0.0.1:1/state?sslmode=disable&connect_timeout=2", Path("/"), {})
    assert "hush" not in str(caught.value)
