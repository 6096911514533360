"""What a state backend is made of: named bytes, and logs that grow while an update runs.

A contract and the words around it; each way of keeping it is one file beside this one (`file`, `s3`, `postgres`).
What the bytes mean is told in `stacks.py` (layout), `locks.py` and `stack_journal.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from engine.model.errors import StaleLease


class BackendError(Exception):
    """The backend cannot do that; the message says what to do."""


@dataclass(frozen=True)
class Blob:
    """A blob as it was read.

    Attributes:
        version: names this content where the store can compare it in one step with writing; "" where it cannot.
    """

    data: bytes
    version: str = ""


class Blobs(Protocol):
    """Named bytes. Keys are paths below `.pulumi`, with `/`; a write is whole or not at all.

    Attributes:
        url: as the user gave it, without a password.
        probe_seconds: for how long a holder may trust that its lock is still there; 0 where looking costs nothing.
    """

    url: str
    probe_seconds: float

    @property
    def identity(self) -> str:
        """Tells whether two objects are the same place."""
        ...

    def get(self, key: str) -> Blob | None:
        """The blob; None where there is none."""
        ...

    def existing(self, keys: Iterable[str]) -> set[str]:
        """Those of the keys that exist."""
        ...

    def put(self, key: str, data: bytes) -> None:
        """Write, whatever was there."""
        ...

    def create(self, key: str, data: bytes, *, guard: str) -> None:
        """Write durably what is not there yet, while the blob `guard` is ("": always); nothing is left otherwise.

        Raises:
            FileExistsError: somebody else has written it.
            StaleLease: the guard is gone.
        """
        ...

    def replace(self, key: str, data: bytes, *, over: Blob | None, check: Callable[[], None], guard: str = "") -> None:
        """Write durably in the place of `over` (None: of nothing), and of nothing else as far as the store can tell.

        Args:
            check: raises if the caller may not write; asked last of all.
            guard: key of a blob that must exist at that moment; "" for none.

        Raises:
            StaleLease: another content is there, or the guard is gone.
        """
        ...

    def delete(self, key: str) -> None:
        """Take a blob away; absent is fine."""
        ...

    def keys(self, folder: str) -> list[str]:
        """All keys below a folder ("": all there are), at any depth, sorted."""
        ...

    def location(self, key: str) -> str:
        """Where a person finds the blob; a URL without a password."""
        ...


class Log(Protocol):
    """A log that one update writes; it exists from the first `append`."""

    def append(self, lines: bytes) -> None:
        """Add whole lines; they are durable on return, and the guard was still there after that.

        Raises:
            StaleLease: the guard is gone, or the log is somebody else's.
        """
        ...

    def close(self, *, remove: bool) -> None:
        """End it; `remove`: it has served, and goes unless a successor has put its own in its place."""
        ...


class Logs(Protocol):
    """The logs of a backend, by key."""

    def open(self, key: str, *, owner: str, guard: str) -> Log:
        """A log to write. Nothing is stored before its first line.

        Args:
            owner: tells this writer from all others, also in a key.
            guard: key of the lock the writer holds.
        """
        ...

    def read(self, key: str) -> bytes | None:
        """What is in a log, perhaps with a torn end; None where there is none."""
        ...

    def exists(self, key: str) -> bool:
        """Whether there is a log."""
        ...

    def delete(self, key: str) -> None:
        """Take a log away, whoever wrote it; absent is fine."""
        ...


def lock_gone() -> StaleLease:
    """What the holder of a lock is told that somebody took away."""
    return StaleLease("the stack's lock was removed by `pulumi cancel`: this update has stopped")


def encode(data: Mapping[str, Any]) -> bytes:
    """JSON as the backend stores it: compact, UTF-8."""
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode()
