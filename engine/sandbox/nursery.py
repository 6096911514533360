"""The parent of all machine processes: a process of its own that starts, restarts and stops them, and outlives nothing.

Commands come as JSON lines on standard input, events leave as JSON lines on standard output. When the input ends (the
sandbox stopped, or was killed) it kills every process group and exits; when it is killed itself, the kernel kills its
children (PR_SET_PDEATHSIG, which is safe here because this process has one thread). Not for import by anything but its
tests: `python -m engine.sandbox.nursery`. Standard library only, so that it is small and starts fast.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

PR_SET_PDEATHSIG = 1
GRACE_SECONDS = 1.0
"""Between SIGTERM and SIGKILL when the sandbox is gone: nobody is left to wait for."""

LINE_BYTES = 1 << 16


@dataclass
class Child:
    """One process that is to run.

    Attributes:
        restart_seconds: how long after an exit nobody asked for it is started again.
        stopping: it was asked to stop.
        kill_at, start_at: moments (monotonic) of the next step; 0 = none.
    """

    id: str
    argv: list[str]
    env: dict[str, str]
    log: str
    restart_seconds: float
    process: subprocess.Popen[bytes] | None = None
    stopping: bool = False
    kill_at: float = 0.0
    start_at: float = 0.0


class Nursery:
    """The table of children, and what to do when a command, an exit or a moment comes."""

    def __init__(self, report: Callable[[Mapping[str, Any]], None]) -> None:
        self.children: dict[str, Child] = {}
        self._report = report
        self._libc = ctypes.CDLL(None)

    def command(self, line: Mapping[str, Any], now: float) -> None:
        """Do what a line asks."""
        match line["op"]:
            case "start":
                child = Child(line["id"], line["argv"], line["env"], line["log"], line["restart_seconds"])
                self.children[child.id] = child
                self._start(child, now)
            case "stop":
                self._stop(line["id"], now + line["grace_seconds"])
            case "signal":
                target = self.children.get(line["id"])
                if target and target.process:
                    _signal_group(target.process.pid, line["signal"])

    def _start(self, child: Child, now: float) -> None:
        child.start_at = 0.0
        parent = os.getpid()

        def die_with_parent() -> None:
            self._libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)

        try:
            with open(child.log, "ab") as log:
                child.process = subprocess.Popen(
                    child.argv, env=child.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    start_new_session=True, preexec_fn=die_with_parent,
                )  # fmt: skip
        except OSError as err:
            self._report({"event": "failed", "id": child.id, "reason": str(err)})
            child.start_at = now + child.restart_seconds
            return
        self._report({"event": "started", "id": child.id, "pid": child.process.pid})

    def _stop(self, id: str, kill_at: float) -> None:
        child = self.children.get(id)
        if child is None or child.process is None:
            self.children.pop(id, None)
            self._report({"event": "stopped", "id": id})
            return
        child.stopping = True
        child.kill_at = kill_at
        _signal_group(child.process.pid, signal.SIGTERM)
        _signal_group(child.process.pid, signal.SIGCONT)

    def reap(self, now: float) -> None:
        """Take note of children that ended."""
        for child in list(self.children.values()):
            if child.process is None or (code := child.process.poll()) is None:
                continue
            _signal_group(child.process.pid, signal.SIGKILL)  # what it started and left behind
            child.process = None
            if child.stopping:
                del self.children[child.id]
                self._report({"event": "stopped", "id": child.id})
            else:
                self._report({"event": "exited", "id": child.id, "code": code})
                child.start_at = now + child.restart_seconds

    def tick(self, now: float) -> None:
        """Take the steps whose moment has come."""
        for child in list(self.children.values()):
            if child.process and child.kill_at and child.kill_at <= now:
                child.kill_at = 0.0
                _signal_group(child.process.pid, signal.SIGKILL)
            if child.process is None and child.start_at and child.start_at <= now:
                self._start(child, now)

    def next_moment(self) -> float | None:
        """When `tick` has something to do next."""
        return min((m for c in self.children.values() for m in (c.kill_at, c.start_at) if m), default=None)

    def end(self) -> None:
        """Stop everything: SIGTERM, a moment of grace, SIGKILL."""
        now = time.monotonic()
        for id in list(self.children):
            self._stop(id, now + GRACE_SECONDS)
        while self.children and time.monotonic() < now + GRACE_SECONDS:
            self.reap(time.monotonic())
            signal.sigtimedwait([signal.SIGCHLD], 0.05)
        for child in self.children.values():
            if child.process:
                _signal_group(child.process.pid, signal.SIGKILL)
                child.process.wait()


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def _write(event: Mapping[str, Any]) -> None:
    with contextlib.suppress(OSError):  # the sandbox is gone: the end of the input says so too
        os.write(1, json.dumps(event).encode() + b"\n")


def main() -> None:
    """Serve until the input ends."""
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    os.set_blocking(wake_read, False)
    signal.set_wakeup_fd(wake_write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    nursery = Nursery(_write)
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    selector.register(wake_read, selectors.EVENT_READ)
    buffer = b""
    while True:
        moment = nursery.next_moment()
        ready = selector.select(None if moment is None else max(0.0, moment - time.monotonic()))
        files = {key.fd for key, _ in ready}
        if wake_read in files:
            os.read(wake_read, LINE_BYTES)
        if 0 in files:
            if not (chunk := os.read(0, LINE_BYTES)):
                break
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                nursery.command(json.loads(line), time.monotonic())
        nursery.reap(time.monotonic())
        nursery.tick(time.monotonic())
    nursery.end()


if __name__ == "__main__":
    main()
