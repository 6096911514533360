"""Locks of the file backend: list, write, list again, as the official engine does; each side honours the other's.

A lock says who holds it. Only one of ours whose holder is proven dead is broken; all else waits for `pulumi cancel`.
Source: pulumi `pkg/backend/diy/lock.go`.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psutil

from engine.deploy.backend.file import BackendError, FileBackend, StackReference, encode, remove_blob, write_blob
from engine.deploy.checkpoint import format_time
from engine.model.errors import StaleLease
from engine.model.fence import Fence

_ENGINE = "stackyard"


class StackLocked(BackendError):
    """Somebody else works on the stack; the words are the official engine's, which the SDK recognises."""


@dataclass(frozen=True)
class LockHolder:
    """Content of a lock file. `executor` and `started` are ours; locks of the official engine have neither."""

    pid: int
    username: str
    hostname: str
    timestamp: str
    executor: str | None = None
    started: float = 0.0

    @classmethod
    def current(cls, executor: str, now: datetime) -> LockHolder:
        """This process."""
        process = psutil.Process()
        return cls(process.pid, _username(), socket.gethostname(), format_time(now), executor, process.create_time())

    @classmethod
    def read(cls, path: Path) -> LockHolder | None:
        """The holder of a lock file; None if it has just been removed."""
        try:
            data = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError:
            data = {}  # half-written by somebody who does not write atomically: held, by whom is unknown
        return cls(
            int(data.get("pid", 0)),
            str(data.get("username", "unknown")),
            str(data.get("hostname", "unknown")),
            str(data.get("timestamp", "unknown")),
            str(data["executor"]) if data.get("engine") == _ENGINE else None,
            float(data.get("started", 0.0)),
        )

    def to_json(self) -> bytes:
        """The lock file's content."""
        shown = {"pid": self.pid, "username": self.username, "hostname": self.hostname, "timestamp": self.timestamp}
        return encode({**shown, "engine": _ENGINE, "executor": self.executor or "", "started": self.started})

    def is_dead(self, fence: Fence) -> bool:
        """Whether it is certain that the holder will never write again."""
        if self.executor is None:
            return False
        if self.executor and fence.holder_is_dead(self.executor):
            return True
        return self.hostname == socket.gethostname() and not self._process_runs()

    def _process_runs(self) -> bool:
        try:
            # A process id is used again; the start time (ticks of 10 ms) tells the processes apart.
            return abs(psutil.Process(self.pid).create_time() - self.started) < 0.1
        except psutil.NoSuchProcess:
            return False


class StackLock:
    """A lock that is held; also the fence of whoever holds it: a lock someone cancelled means stop."""

    def __init__(self, path: Path, fence: Fence) -> None:
        self.path = path
        self._fence = fence

    @property
    def token(self) -> int:
        return self._fence.token

    def check(self) -> None:
        """Return while both the lease and the lock file are ours.

        Raises:
            StaleLease: one of them is not.
        """
        self._fence.check()
        if not self.path.exists():
            raise StaleLease("the stack's lock was removed by `pulumi cancel`: this update has stopped")

    def holder_is_dead(self, lock_owner: str) -> bool:
        return self._fence.holder_is_dead(lock_owner)

    def release(self) -> None:
        """Give the lock back. Only this file is touched, so it is right even after the lease was lost."""
        remove_blob(self.path)


def lock_folder(backend: FileBackend, stack: StackReference) -> Path:
    """The folder of a stack's lock files."""
    return backend.folder / "locks" / stack.qualified


def lock_files(backend: FileBackend, stack: StackReference) -> list[Path]:
    """The stack's lock files, sorted."""
    return sorted(p for p in lock_folder(backend, stack).glob("*.json") if not p.name.startswith("."))


def break_locks(backend: FileBackend, stack: StackReference) -> None:
    """Take every lock of the stack away, also half-written ones: `pulumi cancel`."""
    for path in lock_folder(backend, stack).glob("*"):
        path.unlink(missing_ok=True)


def acquire(
    backend: FileBackend, stack: StackReference, *, holder: LockHolder, lock_id: str, fence: Fence
) -> StackLock:
    """Take the stack's lock.

    Raises:
        StackLocked: somebody else holds it.
        StaleLease: this process may not work on the stack.
    """
    fence.check()
    path = lock_folder(backend, stack) / f"{lock_id}.json"
    _refuse_others(backend, stack, path, lambda h: h.is_dead(fence))
    write_blob(path, holder.to_json())
    try:
        _refuse_others(backend, stack, path, lambda h: h.is_dead(fence))
    except StackLocked:
        remove_blob(path)
        raise
    return StackLock(path, fence)


def _refuse_others(
    backend: FileBackend, stack: StackReference, mine: Path, is_dead: Callable[[LockHolder], bool]
) -> None:
    held: list[str] = []
    for path in lock_files(backend, stack):
        if path == mine or (holder := LockHolder.read(path)) is None:
            continue
        if is_dead(holder):
            remove_blob(path)
            continue
        who = f"{holder.username}@{holder.hostname} (pid {holder.pid})"
        held.append(f"\n  file://{path}: created by {who} at {holder.timestamp}")
    if held:
        raise StackLocked(
            f"the stack is currently locked by {len(held)} lock(s). Either wait for the other process(es) to end or "
            "delete the lock file with `pulumi cancel`." + "".join(held)
        )


def _username() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user id without an entry, as containers have
        return str(os.getuid())
