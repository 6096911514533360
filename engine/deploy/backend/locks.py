"""Locks of a backend: list, write, list again, as the official engine does; each side honours the other's.

A lock says who holds it. Only one of ours whose holder is proven dead is broken; all else waits for `pulumi cancel`.
Source: pulumi `pkg/backend/diy/lock.go`.
"""

from __future__ import annotations

import getpass
import json
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

import psutil

from engine.deploy.backend.blobs import BackendError, Blobs, encode, lock_gone
from engine.deploy.backend.stacks import Backend, StackReference
from engine.deploy.checkpoint import format_time
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
    def read(cls, backend: Backend, key: str) -> LockHolder | None:
        """The holder of a lock; None if it has just been removed."""
        blob = backend.blobs.get(key)
        if blob is None:
            return None
        try:
            data = json.loads(blob.data)
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
    """A lock that is held; also the fence of whoever holds it: a lock someone cancelled means stop.

    Attributes:
        key: of the lock in its backend.
        name: the last part of the key.
    """

    def __init__(self, blobs: Blobs, key: str, fence: Fence) -> None:
        self.key = key
        self.name = key.rpartition("/")[2]
        self._blobs = blobs
        self._fence = fence
        self._trusted_until = 0.0

    @property
    def token(self) -> int:
        return self._fence.token

    def check(self) -> None:
        """Return while both the lease and the lock are ours.

        Where looking is a request, the lock counts as there for `Blobs.probe_seconds` after it was seen; writes of the
        journal and of the checkpoint look for themselves, whatever was seen before.

        Raises:
            StaleLease: one of them is not.
        """
        self._fence.check()
        now = time.monotonic()
        if now < self._trusted_until:
            return
        if not self._blobs.existing([self.key]):
            raise lock_gone()
        self._trusted_until = now + self._blobs.probe_seconds

    def holder_is_dead(self, lock_owner: str) -> bool:
        return self._fence.holder_is_dead(lock_owner)

    def release(self) -> None:
        """Give the lock back. Only this lock is touched, so it is right even after the lease was lost."""
        self._blobs.delete(self.key)


def _lock_folder(stack: StackReference) -> str:
    return f"locks/{stack.qualified}"


def lock_key(stack: StackReference, name: str) -> str:
    """The key of one of a stack's locks."""
    return f"{_lock_folder(stack)}/{name}"


def lock_keys(backend: Backend, stack: StackReference) -> list[str]:
    """The stack's locks, sorted."""
    return [k for k in backend.blobs.keys(_lock_folder(stack)) if k.endswith(".json")]


def break_locks(backend: Backend, stack: StackReference) -> None:
    """Take every lock of the stack away, also half-written ones: `pulumi cancel`."""
    for key in backend.blobs.keys(_lock_folder(stack)):
        backend.blobs.delete(key)


def acquire(backend: Backend, stack: StackReference, *, holder: LockHolder, lock_id: str, fence: Fence) -> StackLock:
    """Take the stack's lock.

    Raises:
        StackLocked: somebody else holds it.
        StaleLease: this process may not work on the stack.
    """
    fence.check()
    key = lock_key(stack, f"{lock_id}.json")
    _refuse_others(backend, stack, key, lambda h: h.is_dead(fence))
    backend.blobs.put(key, holder.to_json())
    try:
        _refuse_others(backend, stack, key, lambda h: h.is_dead(fence))
    except BackendError:
        backend.blobs.delete(key)
        raise
    return StackLock(backend.blobs, key, fence)


def _refuse_others(backend: Backend, stack: StackReference, mine: str, is_dead: Callable[[LockHolder], bool]) -> None:
    held: list[str] = []
    for key in lock_keys(backend, stack):
        if key == mine or (holder := LockHolder.read(backend, key)) is None:
            continue
        if is_dead(holder):
            backend.blobs.delete(key)
            continue
        who = f"{holder.username}@{holder.hostname} (pid {holder.pid})"
        held.append(f"\n  {backend.blobs.location(key)}: created by {who} at {holder.timestamp}")
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
