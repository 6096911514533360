"""The API process as the supervisor starts it: who may open its socket."""

from __future__ import annotations

import os
import select
import signal
import stat
import subprocess
import sys
from pathlib import Path

import httpx

from engine.store import migrate
from engine.store.database import Database

LIMIT = 60.0


def test_only_this_user_may_open_the_socket(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/stackyard.db")
    migrate.migrate(database)
    database.close()
    path = tmp_path / "api.sock"
    path.touch(0o666)  # left by a process that was killed
    environment = os.environ | {"STACKYARD_DATA_DIR": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-m", "api.server"], env=environment, stderr=subprocess.PIPE)
    try:
        transport = httpx.HTTPTransport(uds=str(path))
        with httpx.Client(transport=transport, base_url="http://api", timeout=LIMIT) as client:
            assert _first_answer(client, process).status_code == 200
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=LIMIT)


def _first_answer(client: httpx.Client, process: subprocess.Popen[bytes]) -> httpx.Response:
    assert process.stderr
    for _ in range(int(LIMIT / 0.05)):
        try:
            return client.get("/healthz")
        except httpx.ConnectError:
            assert process.poll() is None, process.stderr.read().decode()
            select.select([], [], [], 0.05)
    raise AssertionError("the API process does not listen")
