"""A process with a controller in it, for tests that kill one. Run as `python -m tests.fakes.controller_process`.

Its operations write what they do into `<folder>/log`, one line each, and wait while `<folder>/hold` exists.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from engine.controller.controller import Controller, ControllerSettings
from engine.controller.result import Done, Result
from engine.model.clock import SystemClock
from engine.model.fence import Fence
from engine.store.database import Database


class LoggedOperations:
    """`Operations` whose effects are lines in a file."""

    def __init__(self, folder: Path, executor_id: str) -> None:
        self._folder = folder
        self._executor_id = executor_id
        self._never = threading.Event()

    def run(self, operation_id: str, fence: Fence) -> Result:
        self._log("began", operation_id, fence)
        while (self._folder / "hold").exists():
            self._never.wait(0.02)
        fence.check()
        self._log("wrote", operation_id, fence)
        return Done()

    def unfinished(self) -> Sequence[tuple[str, str, datetime]]:
        return []

    def give_up(self, operation_id: str, reason: str) -> None:
        raise AssertionError(f"{operation_id} was given up: {reason}")

    def _log(self, what: str, operation_id: str, fence: Fence) -> None:
        with (self._folder / "log").open("a") as file:
            file.write(f"{what} {operation_id} {self._executor_id} {fence.token}\n")


def main() -> None:
    """Arguments: folder, database URL, DBOS URL, executor id, lease seconds, operations to submit (`id:key`)."""
    folder, url, system_url, executor_id, lease = sys.argv[1:6]
    database = Database(url)
    operations = LoggedOperations(Path(folder), executor_id)
    settings = ControllerSettings(system_url, executor_id, float(lease), concurrency=4)
    controller = Controller(settings, database, SystemClock(), operations)
    controller.start()
    for asked in sys.argv[6:]:
        operation_id, _, key = asked.partition(":")
        controller.submit(operation_id, key)
    (Path(folder) / f"ready-{executor_id}").touch()
    controller.died.wait()
    os._exit(3)


if __name__ == "__main__":
    main()
