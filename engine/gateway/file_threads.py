"""File work of the byte path in threads of its own. Knows neither uploads nor downloads."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar

T = TypeVar("T")


async def run_whole(threads: Executor, function: Callable[..., T], *args: Any) -> T:
    """Run to the end even when cancelled: a file that a thread still writes must not be closed under it."""
    working = asyncio.get_running_loop().run_in_executor(threads, lambda: function(*args))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        while not working.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({working})
        raise
