"""The PostgreSQL backend: one table of keys and contents, the official engine's own. Not Stackyard's database.

Source: pulumi `pkg/backend/diy/postgres/{bucket.go,schema.sql}`; parameters of a URL as `lib/pq` takes them.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, LiteralString
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import psycopg
from psycopg import pq, sql

from engine.deploy.backend.blobs import BackendError, Blob, lock_gone
from engine.model.errors import StaleLease

_TABLE = "pulumi_state"
_TABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,47}")  # its index adds 15 characters to at most 63
_IDLE = 4  # a command uses one connection at a time, its journal another


def open_blobs(url: str, env: Mapping[str, str]) -> PostgresBlobs:
    """The table of a `postgres://` URL; it is made where it is missing.

    Raises:
        BackendError: the URL is wrong, or the server cannot be reached.
    """
    parts = urlsplit(url)
    given = {name: values[-1] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
    table = given.pop("table", "") or _TABLE
    if not _TABLE_NAME.fullmatch(table):
        raise BackendError(f"table {table!r} in the backend's URL: a name has up to 48 letters, digits and underscores")
    try:
        pool = _pool(tuple(sorted(_parameters(parts, given, env).items())))
    except ValueError as err:
        raise BackendError(f"unable to open {_shown(parts)}: {err}") from err
    blobs = PostgresBlobs(pool, table.lower(), parts)
    blobs.make_table()
    return blobs


def _parameters(parts: SplitResult, given: Mapping[str, str], env: Mapping[str, str]) -> dict[str, str]:
    """What libpq is told: the URL first, then the environment, then what `lib/pq` assumes."""
    known = {option.keyword.decode(): (option.envvar or b"").decode() for option in pq.Conninfo.get_defaults()}
    told = {name: env[variable] for name, variable in known.items() if variable and env.get(variable)}
    told.setdefault("host", "localhost")
    told.setdefault("sslmode", "require")  # the official engine's client; libpq alone would fall back to plain text
    place = {
        "host": parts.hostname,
        "port": str(parts.port) if parts.port else None,
        "user": unquote(parts.username) if parts.username else None,
        "password": unquote(parts.password) if parts.password else None,
        "dbname": unquote(parts.path.strip("/")),
    }
    told |= {name: value for name, value in place.items() if value}
    told |= {name: value for name, value in given.items() if name in known}
    session = [f"-c {name}={_option(value)}" for name, value in given.items() if name not in known]
    if session:
        told["options"] = " ".join([*filter(None, [told.get("options")]), *session])
    told.setdefault("connect_timeout", "10")
    return told


def _option(value: str) -> str:
    return value.replace("\\", "\\\\").replace(" ", "\\ ")


class _Pool:
    """Connections of one database, shared by all threads; closed with the object."""

    def __init__(self, parameters: Mapping[str, str]) -> None:
        self._parameters = dict(parameters)
        self._idle: list[psycopg.Connection[Any]] = []
        self._lock = threading.Lock()
        weakref.finalize(self, _close_all, self._idle)

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Cursor[Any]]:
        """A transaction; committed when the block ends well."""
        connection = self._take()
        try:
            with connection.transaction(), connection.cursor() as cursor:
                yield cursor
        finally:
            self._give_back(connection)

    def _take(self) -> psycopg.Connection[Any]:
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                return psycopg.connect(autocommit=True, **self._parameters)  # type: ignore[arg-type]
            try:
                connection.execute("")  # a server that restarted is met anew, not with an error
                return connection
            except psycopg.Error:
                connection.close()

    def _give_back(self, connection: psycopg.Connection[Any]) -> None:
        with self._lock:
            usable = not connection.broken and not connection.closed and len(self._idle) < _IDLE
            if usable:
                self._idle.append(connection)
        if not usable:
            connection.close()


def _close_all(connections: list[psycopg.Connection[Any]]) -> None:
    for connection in connections:
        connection.close()


@lru_cache(maxsize=8)  # a command lasts 50 ms and would spend as much on connecting
def _pool(parameters: tuple[tuple[str, str], ...]) -> _Pool:
    return _Pool(dict(parameters))


class PostgresBlobs:
    """Blobs in a table. Conditions are part of the writing transaction, so nothing gets between them and the write."""

    probe_seconds = 1.0

    def __init__(self, pool: _Pool, table: str, parts: SplitResult) -> None:
        self.url = _shown(parts)
        self._parts = parts
        self._pool = pool
        self._table = table
        # The official engine puts the URL's path, here the database's name, before the keys of every remote store.
        folder = unquote(parts.path).strip("/")
        self._prefix = f"{folder}/.pulumi/" if folder else ".pulumi/"

    @property
    def identity(self) -> str:
        return f"{self.url}#{self._table}"

    def location(self, key: str) -> str:
        """See `Blobs.location`; as the official engine puts it."""
        parts = urlsplit(self.url)
        return parts._replace(path=f"{parts.path.rstrip('/')}/.pulumi/{key}").geturl()

    def make_table(self) -> None:
        """Make the table where it is missing, as the official engine does at every start."""
        with self._transaction() as cursor:
            if cursor.execute("SELECT to_regclass(%s)", [self._table]).fetchone() != (None,):
                return
        try:
            with self._transaction() as cursor:
                cursor.execute(
                    self._sql(
                        "CREATE TABLE IF NOT EXISTS {} (key TEXT PRIMARY KEY, data JSON NOT NULL, "
                        "updated_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT now())"
                    )
                )
                index = sql.Identifier(f"{self._table}_key_prefix_idx")
                make = sql.SQL("CREATE INDEX IF NOT EXISTS {} ON {} (key text_pattern_ops)")
                cursor.execute(make.format(index, sql.Identifier(self._table)))
        except _MadeMeanwhile:
            return

    def get(self, key: str) -> Blob | None:
        """See `Blobs.get`."""
        with self._transaction() as cursor:
            query = self._sql("SELECT data::text, md5(data::text) FROM {} WHERE key = %s")
            row = cursor.execute(query, [self._prefix + key]).fetchone()
        return None if row is None else Blob(self._decode(row[0], key), row[1])

    def existing(self, keys: Iterable[str]) -> set[str]:
        """See `Blobs.existing`."""
        with self._transaction() as cursor:
            query = self._sql("SELECT key FROM {} WHERE key = ANY(%s)")
            rows = cursor.execute(query, [[self._prefix + key for key in keys]]).fetchall()
        return {row[0].removeprefix(self._prefix) for row in rows}

    def put(self, key: str, data: bytes) -> None:
        """See `Blobs.put`."""
        with self._transaction() as cursor:
            query = self._sql(
                "INSERT INTO {} (key, data) VALUES (%s, %s) "
                "ON CONFLICT (key) DO UPDATE SET data = excluded.data, updated_at = now()"
            )
            cursor.execute(query, [self._prefix + key, _encode(data)])

    def create(self, key: str, data: bytes, *, guard: str) -> None:
        """See `Blobs.create`."""
        with self._transaction() as cursor:
            self._hold(cursor, guard)
            if not self._insert(cursor, key, data):
                raise FileExistsError(f"{self.location(key)} exists already")

    def replace(self, key: str, data: bytes, *, over: Blob | None, check: Callable[[], None], guard: str = "") -> None:
        """See `Blobs.replace`."""
        with self._transaction() as cursor:
            self._hold(cursor, guard)
            if over is None:
                written = self._insert(cursor, key, data)
            else:
                query = self._sql("UPDATE {} SET data = %s, updated_at = now() WHERE key = %s AND md5(data::text) = %s")
                written = cursor.execute(query, [_encode(data), self._prefix + key, over.version]).rowcount == 1
            if not written:
                raise StaleLease(f"{self.location(key)} was replaced by somebody else: this update has stopped")
            check()

    def delete(self, key: str) -> None:
        """See `Blobs.delete`."""
        with self._transaction() as cursor:
            cursor.execute(self._sql("DELETE FROM {} WHERE key = %s"), [self._prefix + key])

    def keys(self, folder: str) -> list[str]:
        """See `Blobs.keys`."""
        prefix = f"{self._prefix}{folder}/" if folder else self._prefix
        pattern = re.sub(r"([\\%_])", r"\\\1", prefix) + "%"
        with self._transaction() as cursor:
            rows = cursor.execute(self._sql("SELECT key FROM {} WHERE key LIKE %s"), [pattern]).fetchall()
        return sorted(row[0].removeprefix(self._prefix) for row in rows)

    def _hold(self, cursor: psycopg.Cursor[Any], guard: str) -> None:
        """Keep the guard from being deleted until the transaction ends."""
        query = self._sql("SELECT 1 FROM {} WHERE key = %s FOR SHARE")
        if guard and cursor.execute(query, [self._prefix + guard]).fetchone() is None:
            raise lock_gone()

    def _insert(self, cursor: psycopg.Cursor[Any], key: str, data: bytes) -> bool:
        query = self._sql("INSERT INTO {} (key, data) VALUES (%s, %s) ON CONFLICT (key) DO NOTHING")
        return cursor.execute(query, [self._prefix + key, _encode(data)]).rowcount == 1

    def _sql(self, text: LiteralString) -> sql.Composed:
        return sql.SQL(text).format(sql.Identifier(self._table))

    def _decode(self, text: str, key: str) -> bytes:
        try:
            return base64.b64decode(json.loads(text)["data"], validate=True)
        except (ValueError, KeyError, TypeError) as err:
            raise BackendError(f"the row of {self.location(key)} is damaged: {err}; restore it from a backup") from err

    @contextmanager
    def _transaction(self) -> Iterator[psycopg.Cursor[Any]]:
        try:
            with self._pool.transaction() as cursor:
                yield cursor
        except (
            psycopg.errors.UniqueViolation,
            psycopg.errors.DuplicateTable,
            psycopg.errors.DuplicateObject,  # a table has a type of its own name, and the race may show there
        ) as err:
            raise _MadeMeanwhile(str(err)) from err
        except psycopg.Error as err:
            raise BackendError(f"{self.url}: {str(err).strip()}") from err


class _MadeMeanwhile(BackendError):
    """Two made the same table or row at once, and the other one did it."""


def _encode(data: bytes) -> str:
    return json.dumps({"data": base64.b64encode(data).decode()}, separators=(",", ":"))


def _shown(parts: SplitResult) -> str:
    """The URL without name, password and what parameters may hide."""
    place = parts.netloc.rpartition("@")[2]
    named = f"****:****@{place}" if "@" in parts.netloc else place
    query = "&".join(p for p in parts.query.split("&") if not p.startswith(("password=", "sslpassword=")))
    return parts._replace(netloc=named, query=query).geturl()
