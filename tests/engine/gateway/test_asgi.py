"""What holds for every request, whatever it asks."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from engine.gateway import asgi


async def test_a_watched_request_leaves_no_cycle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking for cycles in the middle of requests was a tenth of the gateway's work."""
    monkeypatch.setattr(asgi, "LOOK_SECONDS", 0)
    looks = asyncio.Event()

    class Client:
        async def __call__(self) -> asgi.Message:
            looks.set()
            return await asyncio.get_running_loop().create_future()

    async def work() -> None:
        await looks.wait()

    client = Client()
    left = weakref.ref(client)
    gc.disable()
    try:
        await asyncio.create_task(asgi.while_connected(client, work()))
        del client
        for _ in range(3):
            await asyncio.sleep(0)
        assert left() is None
    finally:
        gc.enable()
