"""A sandbox cloud on a thread of its own, for tests whose own work blocks. Its Droplets start no processes."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.sandbox.server import SandboxSettings, running

BOUNDED_SECONDS = 60


@contextmanager
def sandbox_on_a_thread(folder: Path, *, boot_seconds: float = 0) -> Iterator[str]:
    """Serve until the block ends; yields the cloud's URL."""
    ready, done, url = threading.Event(), threading.Event(), ""

    async def serve() -> None:
        nonlocal url
        settings = SandboxSettings(folder, boot_seconds=boot_seconds, machines=False, rate_limits=False)
        async with running(settings) as sandbox:
            url = sandbox.url
            ready.set()
            await asyncio.to_thread(done.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), name="sandbox")
    thread.start()
    try:
        assert ready.wait(BOUNDED_SECONDS)
        yield url
    finally:
        done.set()
        thread.join(BOUNDED_SECONDS)
        assert not thread.is_alive()
