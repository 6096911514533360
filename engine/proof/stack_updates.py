"""A process that runs so many stack updates a second, as a worker beside a gateway does. Measures nothing itself.

`python -m engine.proof.stack_updates FOLDER PER_SECOND COUNT_FILE`; the file holds how many were done, and the process
runs until SIGTERM. Each is a whole update of three stashes, through the Automation API and a file backend.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from engine.controller.priority import give_way
from engine.deploy.command import EngineLoop
from engine.model.clock import SystemClock
from engine.model.fence import NoFence
from engine.model.stack import StackRequest
from engine.proof.bench_peer import driver, stashes

_STACKS = 4


def main() -> None:
    folder, per_second, count_file = Path(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3])
    give_way()
    stopped, clock, loop = threading.Event(), SystemClock(), EngineLoop()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    engine = driver(folder, loop, clock, os.environ, "embedded")
    done, lock = 0, threading.Lock()

    def go_on(number: int) -> None:
        """Update one stack over and over, never before its time."""
        nonlocal done
        request, due = StackRequest(f"updates-{number}", stashes(3)), clock.monotonic()
        while not stopped.wait(max(0.0, due - clock.monotonic())):
            engine.up(request, fence=NoFence())
            with lock:
                done += 1
                count_file.write_text(str(done))
            due = max(due + _STACKS / per_second, clock.monotonic() - 1)  # never a burst to make up for lost time

    with ThreadPoolExecutor(_STACKS) as pool:
        for ended in [pool.submit(go_on, number) for number in range(_STACKS)]:
            ended.result()
    loop.close()


if __name__ == "__main__":
    main()
