"""Children are restarted, stopped and mourned; `serve` keeps the public port through a restart of the gateway."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from api import supervisor
from api.settings import Settings
from api.supervisor import ChildSpec, Supervisor
from api.worker_process import bury
from engine.model.clock import SystemClock
from engine.store import leases, migrate
from engine.store.database import Database

SLEEPER = [sys.executable, "-c", "import signal; signal.pause()"]
DEAF = [
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()",
]


async def eventually(check: Callable[[], Any], seconds: float = 60.0) -> Any:
    async with asyncio.timeout(seconds):
        while not (found := check()):  # noqa: ASYNC110 (processes set no event of this loop)
            await asyncio.sleep(0.01)
        return found


def pid_of(folder: Path, name: str) -> int:
    path = folder / f"{name}.pid"
    return int(path.read_text().strip() or 0) if path.exists() else 0


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def ignored_signals(pid: int) -> int:
    line = next(n for n in Path(f"/proc/{pid}/status").read_text().splitlines() if n.startswith("SigIgn:"))
    return int(line.split()[1], 16)


def new_supervisor(folder: Path, *children: ChildSpec) -> Supervisor:
    return Supervisor(children, run_dir=folder, environment=os.environ, fds=[], clock=SystemClock())


async def test_child_that_dies_is_started_again_and_told_whom_it_replaces(tmp_path: Path) -> None:
    runs: list[tuple[str, str]] = []
    stop = asyncio.Event()

    def command(run: str, previous: str) -> list[str]:
        runs.append((run, previous))
        return SLEEPER

    child = ChildSpec("worker", command)
    running = asyncio.create_task(new_supervisor(tmp_path, child).run(stop))
    first = await eventually(lambda: pid_of(tmp_path, "worker"))
    os.kill(first, signal.SIGKILL)
    second = await eventually(lambda: pid_of(tmp_path, "worker") not in (0, first) and pid_of(tmp_path, "worker"))
    assert runs[0][0].startswith("worker-") and runs[0][1] == ""
    assert runs[1][1] == runs[0][0] != runs[1][0] and not is_alive(first)
    stop.set()
    await asyncio.wait_for(running, 60)
    assert not is_alive(second) and pid_of(tmp_path, "worker") == 0

    stop.clear()
    later = asyncio.create_task(new_supervisor(tmp_path, child).run(stop))
    await eventually(lambda: pid_of(tmp_path, "worker"))
    assert runs[2][1] == runs[1][0]
    stop.set()
    await asyncio.wait_for(later, 60)


async def test_child_that_ignores_the_request_to_stop_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "STOP_SECONDS", 0.2)
    stop = asyncio.Event()
    running = asyncio.create_task(new_supervisor(tmp_path, ChildSpec("deaf", lambda run, previous: DEAF)).run(stop))
    pid = await eventually(lambda: pid_of(tmp_path, "deaf"))
    await eventually(lambda: ignored_signals(pid) & 1 << signal.SIGTERM - 1)
    stop.set()
    await asyncio.wait_for(running, 60)
    assert not is_alive(pid)


async def test_child_that_always_fails_is_started_less_and_less_often(tmp_path: Path) -> None:
    starts: list[float] = []
    clock = SystemClock()

    def command(run: str, previous: str) -> list[str]:
        starts.append(clock.monotonic())
        return [sys.executable, "-S", "-c", "raise SystemExit(1)"]

    stop = asyncio.Event()
    running = asyncio.create_task(new_supervisor(tmp_path, ChildSpec("bad", command)).run(stop))
    await eventually(lambda: len(starts) >= 4)
    stop.set()
    await asyncio.wait_for(running, 60)
    gaps = [b - a for a, b in itertools.pairwise(starts)]
    assert gaps[1] > 0.2 and gaps[2] > 0.4


def test_replaced_worker_has_no_leases_any_more(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    database = Database(settings.resolved_database_url)
    migrate.migrate(database)
    now = SystemClock().now()
    with database.write() as session:
        assert leases.acquire(session, "stack:dep-x", "worker-dead", 30, now)
    bury(settings, "worker-dead")
    with database.write() as session:
        assert leases.acquire(session, "stack:dep-x", "worker-new", 30, SystemClock().now())
    database.close()


class Serve:
    """`stackyard serve` without a worker, as a process."""

    def __init__(self, folder: Path) -> None:
        self.data_dir = folder / "data"
        self.port_file = folder / "port"
        command = [sys.executable, "-m", "api.cli.main", "serve", "--port", "0", "--port-file", str(self.port_file)]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("STACKYARD_")}
        with (folder / "out").open("wb") as out:
            self.process = subprocess.Popen(
                [*command, "--data-dir", str(self.data_dir), "--no-worker"], env=environment, stdout=out, stderr=out
            )
        self.out = folder / "out"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port_file.read_text()}"

    def ready(self) -> bool:
        assert self.process.poll() is None, self.out.read_text()
        if not self.port_file.exists():
            return False
        try:
            return "worker" in httpx.get(f"{self.url}/readyz", timeout=10).json().get("checks", {})
        except httpx.HTTPError:
            return False


@pytest.fixture
def serve(tmp_path: Path) -> Any:
    started = Serve(tmp_path)
    yield started
    if started.process.poll() is None:
        started.process.terminate()
        started.process.wait(60)


async def test_serve_survives_its_childrens_deaths_and_stops_together(serve: Serve) -> None:
    await eventually(serve.ready)
    gateway, api = pid_of(serve.data_dir, "gateway"), pid_of(serve.data_dir, "api")
    os.kill(gateway, signal.SIGKILL)
    answers: list[int] = []  # asked while there is no gateway: the connection waits in the supervisor's socket
    asking = threading.Thread(target=lambda: answers.append(httpx.get(f"{serve.url}/healthz", timeout=60).status_code))
    asking.start()
    await asyncio.to_thread(asking.join, 60)
    assert answers == [200] and pid_of(serve.data_dir, "gateway") not in (0, gateway)

    os.kill(api, signal.SIGKILL)
    await eventually(lambda: pid_of(serve.data_dir, "api") not in (0, api))
    await eventually(serve.ready)

    pids = [pid_of(serve.data_dir, name) for name in ("gateway", "api")]
    serve.process.terminate()
    assert await asyncio.to_thread(serve.process.wait, 60) == 0
    assert not any(map(is_alive, pids))


async def test_children_die_with_a_killed_supervisor_and_a_second_one_can_start(serve: Serve) -> None:
    await eventually(serve.ready)
    pids = [pid_of(serve.data_dir, name) for name in ("gateway", "api")]
    second = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "api.cli.main", "serve", "--port", "0", "--data-dir", str(serve.data_dir)],
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert second.returncode == 1 and "another `stackyard serve` is using" in second.stderr
    serve.process.kill()
    serve.process.wait(10)
    await eventually(lambda: not any(map(is_alive, pids)))


def test_serve_says_why_when_the_database_cannot_be_used(tmp_path: Path) -> None:
    environment = os.environ | {"STACKYARD_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    command = [sys.executable, "-m", "api.cli.main", "serve", "--port", "0", "--no-worker", "--data-dir", str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90, check=False)
    assert done.returncode == 1
    assert "the database does not answer" in done.stderr and "STACKYARD_DATABASE_URL" in done.stderr
    assert "Traceback" not in done.stderr
