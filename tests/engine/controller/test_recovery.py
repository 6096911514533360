"""Processes that die or sleep in the middle of an operation; each has a real controller on DBOS."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.model.clock import SystemClock
from engine.store import leases
from engine.store.database import Database

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.timeout(300)

LEASE_SECONDS = 5.0
"""Short enough to be waited for, long enough that who is only slow does not lose it."""


class Processes:
    """Controllers in processes of their own, on one pair of databases."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder, self.database = folder, database
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, executor_id: str, *operations: str, lease_seconds: float = 30.0) -> subprocess.Popen[bytes]:
        url = self.database.url
        system_url = f"sqlite:///{self.folder}/dbos.db" if self.database.is_sqlite else url
        command = [sys.executable, "-m", "tests.fakes.controller_process", str(self.folder), url, system_url]
        process = subprocess.Popen([*command, executor_id, str(lease_seconds), *operations], cwd=ROOT)
        self.running.append(process)
        self.until(lambda: (self.folder / f"ready-{executor_id}").exists(), f"{executor_id} ready")
        return process

    def log(self) -> list[str]:
        path = self.folder / "log"
        return path.read_text().splitlines() if path.exists() else []

    def until(self, check: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
        never = threading.Event()
        for _ in range(int(seconds / 0.05)):
            if check():
                return
            never.wait(0.05)
        raise AssertionError(f"{what} did not happen in {seconds:g} s; log: {self.log()}")

    def hold(self) -> None:
        (self.folder / "hold").touch()

    def let_go(self) -> None:
        (self.folder / "hold").unlink()


@pytest.fixture
def processes(database: Database, tmp_path: Path) -> Iterator[Processes]:
    folder = tmp_path / "processes"
    folder.mkdir()
    rig = Processes(folder, database)
    yield rig
    for process in rig.running:
        if process.poll() is None:
            process.kill()
        process.wait()


def test_a_killed_process_is_replaced_at_once_when_its_parent_tells(processes: Processes) -> None:
    processes.hold()
    victim = processes.start("w1", "op_1:s", "op_2:s")
    processes.until(lambda: processes.log() == ["began op_1 w1 1"], "the first operation")
    victim.kill()
    victim.wait()
    with processes.database.write() as session:
        assert leases.expire_executor(session, "w1", SystemClock().now()) == 2
    processes.let_go()
    processes.start("w2")
    expected = ["began op_1 w1 1", "began op_1 w2 2", "wrote op_1 w2 2", "began op_2 w2 3", "wrote op_2 w2 3"]
    processes.until(lambda: processes.log() == expected, "both operations, in order", seconds=60)


def test_a_killed_process_is_replaced_when_its_lease_ends_although_nobody_tells(processes: Processes) -> None:
    processes.hold()
    victim = processes.start("w1", "op_1:s", lease_seconds=LEASE_SECONDS)
    processes.until(lambda: len(processes.log()) == 1, "the operation")
    processes.start("w2", lease_seconds=LEASE_SECONDS)
    victim.kill()
    victim.wait()
    processes.let_go()
    processes.until(lambda: processes.log()[-1] == "wrote op_1 w2 2", "the take-over", seconds=60)


def test_a_stopped_process_that_wakes_up_writes_nothing_and_ends(processes: Processes) -> None:
    processes.hold()
    sleeper = processes.start("w1", "op_1:s", lease_seconds=LEASE_SECONDS)
    processes.until(lambda: len(processes.log()) == 1, "the operation")
    os.kill(sleeper.pid, signal.SIGSTOP)
    processes.start("w2", lease_seconds=LEASE_SECONDS)
    processes.until(lambda: processes.log()[-1] == "began op_1 w2 2", "the take-over", seconds=60)
    processes.let_go()
    processes.until(lambda: processes.log()[-1] == "wrote op_1 w2 2", "the end", seconds=60)
    os.kill(sleeper.pid, signal.SIGCONT)
    assert sleeper.wait(60) == 3, "a process that was taken for dead ends"
    assert not [line for line in processes.log() if line.startswith("wrote op_1 w1")]


def test_two_live_processes_do_everything_once(processes: Processes) -> None:
    processes.start("w1", *(f"op_{n}:s{n % 5}" for n in range(20)))
    processes.start("w2", *(f"op_{n}:s{n % 5}" for n in range(20)))
    processes.until(lambda: len(processes.log()) >= 40, "all operations")
    lines = processes.log()
    for n in range(20):
        assert len([line for line in lines if line.startswith(f"wrote op_{n} ")]) == 1
        assert len([line for line in lines if line.startswith(f"began op_{n} ")]) == 1
