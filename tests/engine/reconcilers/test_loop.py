"""The loop that reconcilers share: everybody's turn comes."""

from __future__ import annotations

import asyncio

import pytest

from engine.model.clock import SystemClock
from engine.model.fence import NoFence
from engine.reconcilers import loop
from engine.reconcilers.deployments.apply import Outcome
from engine.reconcilers.loop import Looked, LookLoop
from engine.store.database import Database


async def test_rows_that_always_have_something_to_do_keep_no_other_waiting(
    store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CONCURRENT_LOOKS", 2)
    seen = asyncio.Event()

    async def look(key: str) -> Outcome:
        if key == "quiet":
            seen.set()
        return Outcome(look_again=True)

    looked = Looked("handler", lambda _: ["busy_1", "busy_2", "quiet"], look)
    running = asyncio.create_task(LookLoop(store, SystemClock(), NoFence(), looked, period_seconds=60).run())
    try:
        await asyncio.wait_for(seen.wait(), 20)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_row_that_somebody_waits_for_goes_before_those_that_are_only_late(
    store: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "CONCURRENT_LOOKS", 1)
    looks: list[str] = []
    seen = asyncio.Event()

    async def look(key: str) -> Outcome | None:
        looks.append(key)
        if key == "woken":
            seen.set()
        elif len(looks) == 1:
            running.hint("woken")
        return Outcome(look_again=True)

    looked = Looked("handler", lambda _: [*(f"late_{n}" for n in range(50)), "woken"], look)
    running = LookLoop(store, SystemClock(), NoFence(), looked, period_seconds=60)
    task = asyncio.create_task(running.run())
    try:
        await asyncio.wait_for(seen.wait(), 20)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert looks.index("woken") == 1
