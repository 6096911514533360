"""A PostgreSQL server for one measurement: a cluster of its own in a folder, on a free port of 127.0.0.1."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.model.errors import Unavailable

_START_SECONDS = 60
_OPTIONS = (
    "-c max_connections=100 -c shared_buffers=512MB -c max_wal_size=8GB -c checkpoint_timeout=30min "
    "-c maintenance_work_mem=512MB"
)
"""What an operator of a small server would set; durability stays on: every commit waits for the disk."""


def find_binaries() -> Path:
    """The folder with `initdb` and `pg_ctl`.

    Raises:
        Unavailable: there is no PostgreSQL here; the message says how to get one.
    """
    folders = [p.parent for p in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True)]
    if folders:
        return folders[0]
    on_path = shutil.which("initdb")
    if on_path and shutil.which("pg_ctl"):
        return Path(on_path).resolve().parent
    raise Unavailable("this measures PostgreSQL and there is none: `apt-get install postgresql` as root, then again")


@contextmanager
def private_postgres() -> Iterator[str]:
    """Start a server and stop it at the end; yields a database URL. Runs as user `postgres` where we are root."""
    binaries, port = find_binaries(), _free_port()
    user = "postgres" if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="stackyard-bench-postgres-"))
    if user:
        shutil.chown(folder, user=user)

    def run(program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(binaries / program), *arguments], user=user, cwd=folder, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, text=True, timeout=2 * _START_SECONDS, check=False,
        )  # fmt: skip
        if done.returncode:
            raise Unavailable(f"{program} of PostgreSQL failed: {done.stderr.strip()[-500:]}")

    data = str(folder / "data")
    try:
        run("initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C")
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder} {_OPTIONS}"
        run("pg_ctl", "-D", data, "-o", options, "-l", str(folder / "log"), "-w", "-t", str(_START_SECONDS), "start")
        try:
            yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
