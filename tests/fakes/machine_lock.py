"""Lets one process of this machine at a time install or build what tests need; not a lock for tests themselves."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_folder() -> Path:
    """Where built programs stay, outside the checkout."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stackyard" / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def machine_lock(name: str) -> Iterator[None]:
    """Wait until no other process holds the lock of this name. Look again inside whether there is still work to do."""
    with open(cache_folder() / f".{name}.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
