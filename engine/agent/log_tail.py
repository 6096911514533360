"""The last lines of a log file and what is written after them; knows nothing of HTTP."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

_BLOCK = 65536
_POLL_SECONDS = 0.2  # the standard library cannot wait for a file to grow


def last_lines(path: Path, count: int) -> tuple[bytes, int]:
    """The last `count` lines and the offset behind them. Reads backwards, so a large file costs nothing.

    Raises:
        FileNotFoundError: nothing has been logged yet.
    """
    with path.open("rb") as file:
        end = start = file.seek(0, os.SEEK_END)
        tail = b""
        while start > 0 and tail.count(b"\n") <= count:
            step = min(_BLOCK, start)
            start -= step
            file.seek(start)
            tail = file.read(step) + tail
    lines = tail.splitlines(keepends=True)
    return b"".join(lines[-count:] if count else []), end


async def follow(path: Path, count: int) -> AsyncIterator[bytes]:
    """The last lines, then everything new, for ever; waits for a missing file, starts over when it is rotated."""
    offset, inode = -1, 0
    while True:
        try:
            found = path.stat()
            if offset < 0:
                text, offset = last_lines(path, count)
            else:
                rotated = found.st_ino != inode or found.st_size < offset
                text, offset = _read_from(path, 0 if rotated else offset)
            inode = found.st_ino
        except FileNotFoundError:
            text = b""
        if text:
            yield text
        else:
            await asyncio.sleep(_POLL_SECONDS)


def _read_from(path: Path, offset: int) -> tuple[bytes, int]:
    with path.open("rb") as file:
        file.seek(offset)
        text = file.read(_BLOCK)
    return text, offset + len(text)
