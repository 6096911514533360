"""The bytes of objects: one immutable file each. Which object they belong to is in `index.py`."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import ParamSpec, TypeVar

from engine.model.ids import random_hex

BLOCK_BYTES = 1 << 20
"""Read and written at a time: large enough for a thread's hop to cost nothing, small enough for many at once."""

THREADS = 4

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True)
class Blob:
    """A file and how long it is."""

    name: str
    size: int


class Blobs:
    """A folder of files named at random."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Threads of its own: clients that block in the loop's (a test with boto3) would wait for ever for themselves.
        self._threads = ThreadPoolExecutor(THREADS, "spaces")
        folder.mkdir(parents=True, exist_ok=True)

    def close(self) -> None:
        """Let the threads go."""
        self._threads.shutdown(wait=False)

    async def run(self, work: Callable[P, R], *args: P.args, **_: P.kwargs) -> R:
        """Do something with a file, or with many bytes, without holding up everybody else."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *args)

    def new(self) -> tuple[str, Path]:
        """A name that is free, and its place."""
        name = random_hex(32)
        path = self.path(name)
        path.parent.mkdir(exist_ok=True)
        return name, path

    def path(self, name: str) -> Path:
        """Where a file is."""
        return self._folder / name[:2] / name

    def remove(self, blobs: Sequence[Blob]) -> None:
        """Delete files; whoever reads one goes on reading."""
        for blob in blobs:
            self.path(blob.name).unlink(missing_ok=True)

    def duplicate(self, blobs: Sequence[Blob]) -> tuple[Blob, ...]:
        """The same bytes under other names, without copying them."""
        copies = []
        for blob in blobs:
            name, path = self.new()
            os.link(self.path(blob.name), path)
            copies.append(Blob(name, blob.size))
        return tuple(copies)

    def sweep(self, known: Collection[str]) -> None:
        """Delete what nothing refers to: uploads that a crash cut short."""
        for path in self._folder.glob("*/*"):
            if path.name not in known:
                path.unlink(missing_ok=True)

    async def read(self, blobs: Sequence[Blob], start: int, length: int) -> AsyncIterator[bytes]:
        """Some of the bytes, block by block. Files are opened first, so a delete in between does not matter."""
        with contextlib.ExitStack() as stack:
            opened = []
            for blob in blobs:
                if length > 0 and start < blob.size:
                    file = stack.enter_context(self.path(blob.name).open("rb"))
                    file.seek(start)
                    opened.append((file, min(length, blob.size - start)))
                    length -= opened[-1][1]
                start = max(0, start - blob.size)
            for file, left in opened:
                while left > 0:
                    size = min(left, BLOCK_BYTES)
                    small = size <= BLOCK_BYTES // 8
                    block = file.read(size) if small else await self.run(file.read, size)
                    if not block:
                        raise OSError(f"{file.name} is shorter than it was")
                    left -= len(block)
                    yield block
