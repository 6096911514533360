"""When a worker's process must end to be started anew."""

from __future__ import annotations

import asyncio
import threading
from types import SimpleNamespace
from typing import Any, cast

from api.worker import _until_stopped
from engine.controller.controller import Controller
from engine.deploy.command import EngineLoop

WAIT_SECONDS = 60


async def until_stopped(controller: Any, loop: EngineLoop) -> bool:
    """What the worker waits for; leading goes on for ever."""
    leading = asyncio.create_task(asyncio.Event().wait())
    try:
        waiting = _until_stopped(cast(Controller, controller), cast("asyncio.Task[None]", leading), loop)
        return await asyncio.wait_for(waiting, WAIT_SECONDS)
    finally:
        leading.cancel()


async def test_worker_ends_when_a_program_was_left_running_in_it() -> None:
    loop, controller = EngineLoop(), SimpleNamespace(died=threading.Event())
    waiting = asyncio.create_task(until_stopped(controller, loop))
    await asyncio.sleep(0)
    assert not waiting.done()
    loop.note_abandoned()
    assert await waiting


async def test_worker_ends_when_it_is_taken_for_dead() -> None:
    controller = SimpleNamespace(died=threading.Event())
    controller.died.set()
    assert await until_stopped(controller, EngineLoop())
