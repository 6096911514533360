"""A private PostgreSQL server for tests: a cluster of its own in a temporary folder, on a free port."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import psycopg

from tests.fakes.machine_lock import machine_lock

HOST = "127.0.0.9"
"""Connections leave from 127.0.0.1: on another address none takes the port between its choice and the start."""
_START_SECONDS = 60


class PostgresMissing(Exception):
    """No PostgreSQL here and no way to install it; says what to do."""


def find_binaries() -> Path:
    """The folder with `initdb` and `pg_ctl`; installs Debian's package where that is possible.

    Raises:
        PostgresMissing: neither found nor installable.
    """
    with machine_lock("postgres"):
        return _installed() or _install()


def _install() -> Path:
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise PostgresMissing("PostgreSQL is not installed: `apt-get install postgresql` as root")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "update"], ["apt-get", "install", "-y", "--no-install-recommends", "postgresql"]):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    if found := _installed():
        return found
    raise PostgresMissing(f"PostgreSQL could not be installed: {done.stderr.strip()[-300:]}")


def _installed() -> Path | None:
    folders = [p.parent for p in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)]
    if folders:
        return folders[0]
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path and shutil.which("pg_ctl") else None


class PostgresCluster:
    """One server; a context manager. Run as user `postgres` when we are root, which PostgreSQL refuses to be."""

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self._user = "postgres" if os.geteuid() == 0 else None
        self._folder = Path(tempfile.mkdtemp(prefix="stackyard-postgres-"))
        self._databases = 0
        self.port = _free_port()

    def __enter__(self) -> PostgresCluster:
        if self._user:
            shutil.chown(self._folder, user=self._user)
        data = str(self._folder / "data")
        self._run("initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        options = (
            f"-c listen_addresses={HOST} -c port={self.port} -c unix_socket_directories={self._folder} "
            "-c fsync=off -c full_page_writes=off -c max_connections=200 "
            "-c wal_level=minimal -c max_wal_senders=0 -c max_wal_size=8GB -c checkpoint_timeout=1h -c autovacuum=off"
        )
        log = str(self._folder / "log")
        self._run("pg_ctl", "-D", data, "-o", options, "-l", log, "-w", "-t", str(_START_SECONDS), "start")
        return self

    def __exit__(self, *_error: object) -> None:
        self._run("pg_ctl", "-D", str(self._folder / "data"), "-m", "immediate", "-w", "stop")
        shutil.rmtree(self._folder, ignore_errors=True)

    def new_database(self, template: str = "template1") -> str:
        """Create an empty database (or a copy of `template`); returns its SQLAlchemy URL."""
        self._databases += 1
        name = f"test_{self._databases}"
        with psycopg.connect(f"host={HOST} port={self.port} user=postgres dbname=postgres", autocommit=True) as c:
            # the cheaper way here, and the only one before version 15
            copied = " STRATEGY FILE_COPY" if c.info.server_version >= 150000 else ""
            c.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"{copied}')  # type: ignore[arg-type]
        return f"postgresql+psycopg://postgres@{HOST}:{self.port}/{name}"

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._binaries / program), *arguments],
            user=self._user,
            cwd=self._folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=2 * _START_SECONDS,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stderr.strip()[-500:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])
