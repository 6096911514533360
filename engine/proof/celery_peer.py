"""Celery with Redis on the same machine: a task that does nothing, through `delay` and back.

Needs `redis-server` on PATH and a Python that imports celery and redis, in an environment of its own.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_TASKS = """
import os
from celery import Celery
url = os.environ["NOOP_REDIS"]
app = Celery("noop_tasks", broker=url, backend=url)
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=4, task_ignore_result=False)

@app.task
def noop(value):
    return {"output": value}
"""

_CLIENT = """
import sys, time
from celery.result import ResultSet
from noop_tasks import noop
count = int(sys.argv[1])
payload = {"prompt": "a cat astronaut", "steps": 20, "seed": 42}
noop.delay(payload).get(timeout=60)
for _ in range(50):
    noop.delay(payload).get(timeout=60)
began = time.monotonic()
results = [noop.delay(payload) for _ in range(count)]
for result in results:
    result.get(timeout=300)
print("per_second", count / (time.monotonic() - began))
"""


@dataclass(frozen=True)
class Peer:
    """What was measured, or why nothing was."""

    per_second: float | None = None
    reason: str = ""


def tasks_per_second(count: int, python: str) -> Peer:
    """Tasks per second from the first `delay` to the last result."""
    redis = shutil.which("redis-server")
    if not redis:
        return Peer(reason="there is no redis-server on PATH")
    if not python:
        return Peer(reason="no Python with celery was named (--celery-python)")
    with tempfile.TemporaryDirectory(prefix="stackyard-bench-celery-") as name:
        folder = Path(name)
        (folder / "noop_tasks.py").write_text(_TASKS)
        (folder / "client.py").write_text(_CLIENT)
        with _redis(redis, folder) as url, _worker(python, folder, url):
            done = subprocess.run(
                [python, "client.py", str(count)], cwd=folder, env={"NOOP_REDIS": url, "PATH": "/usr/bin:/bin"},
                capture_output=True, text=True, timeout=600, check=False,
            )  # fmt: skip
    if done.returncode:
        return Peer(reason=f"celery's client failed: {done.stderr.strip()[-300:]}")
    return Peer(float(done.stdout.rpartition("per_second")[2]))


@contextmanager
def _redis(binary: str, folder: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--appendonly", "yes",
               "--appendfsync", "everysec", "--save", ""]  # fmt: skip
    server = subprocess.Popen([binary, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        server.terminate()
        server.wait(30)


@contextmanager
def _worker(python: str, folder: Path, url: str) -> Iterator[None]:
    command = [python, "-m", "celery", "-A", "noop_tasks", "worker", "--loglevel", "error", "--concurrency", "2",
               "--without-gossip", "--without-mingle"]  # fmt: skip
    with (folder / "worker.log").open("wb") as log:
        worker = subprocess.Popen(
            command, cwd=folder, env={"NOOP_REDIS": url, "PATH": "/usr/bin:/bin", "C_FORCE_ROOT": "1"}, stdout=log,
            stderr=log,
        )  # fmt: skip
        try:
            yield
        finally:
            worker.terminate()
            worker.wait(60)
