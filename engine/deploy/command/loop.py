"""The engine's event loop: one thread per process on which all updates run, and what they share.

Created by the composition root and handed to every `EmbeddedPulumi`. Not a thread pool: callers block, the loop
does not.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from engine.deploy.launchers import tuning
from engine.deploy.plugin_process import PluginPool
from engine.deploy.secrets import KeyCache
from engine.model.errors import StaleLease
from engine.model.fence import Fence

T = TypeVar("T")
_INTERRUPTED = (
    "^C received; cancelling: running steps finish and are saved. If you would like to terminate immediately, press ^C "
    "again.\nNote that terminating immediately may lead to orphaned resources and other inconsistencies."
)
_TERMINATED = "^C received; terminating: what was running is recorded as pending and asked about by the next update."


class UpdateCancellation:
    """How urgently one running update should stop: 0 go on, 1 finish running steps and save, 2 now."""

    def __init__(self, fence: Fence) -> None:
        self._fence = fence
        self._asked = 0

    @property
    def level(self) -> int:
        if self._asked < 2:
            try:
                self._fence.check()
            except StaleLease:
                self._asked = 2
        return self._asked

    def request(self) -> int:
        """Ask to stop; a second time: at once. Returns how urgently it is asked now."""
        self._asked = min(self._asked + 1, 2)
        return self._asked


@dataclass(frozen=True)
class _Running:
    """One update, and where it talks to people."""

    cancellation: UpdateCancellation
    tell: Callable[[str], None]


class EngineLoop:
    """An event loop on a daemon thread, started at first use.

    Attributes:
        keys: secrets keys derived in this process.
        plugins: provider plugins running for this process; only to be used on the loop.
        abandoned: how many inline programs were left running in this process; with any, it should be started anew.
    """

    def __init__(self) -> None:
        self.keys = KeyCache()
        self.plugins = PluginPool()
        self.abandoned = 0
        self._guard = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._running: dict[str, _Running] = {}

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for it; call from any other thread."""
        return asyncio.run_coroutine_threadsafe(work, self._started()).result()

    def close(self) -> None:
        """Stop the loop; updates still running are cancelled."""
        with self._guard:
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is None or thread is None:
            return
        asyncio.run_coroutine_threadsafe(self.plugins.close(), loop).result()
        asyncio.run_coroutine_threadsafe(_cancel_others(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()

    def enter(self, stack: str, cancellation: UpdateCancellation, tell: Callable[[str], None]) -> None:
        """Note that an update runs here, so that `pulumi cancel` and ^C can reach it; `tell` says what ^C does."""
        with self._guard:
            self._running[stack] = _Running(cancellation, tell)

    def leave(self, stack: str) -> None:
        """The update ended."""
        with self._guard:
            self._running.pop(stack, None)

    def note_abandoned(self) -> None:
        """Note that nobody waits any longer for a program which may still run."""
        self.abandoned += 1

    def cancel(self, stack: str) -> bool:
        """Ask the update that runs here to stop; False if none does."""
        with self._guard:
            running = self._running.get(stack)
        if running is not None:
            running.cancellation.request()
        return running is not None

    def interrupt(self) -> int:
        """Ask everything that runs here to stop, as ^C does; returns how urgently, 0 where nothing runs."""
        # No lock: the signal may have come while this very thread holds it.
        asked = 0
        for running in list(self._running.values()):
            asked = max(asked, running.cancellation.request())
            running.tell(_INTERRUPTED if asked == 1 else _TERMINATED)
        return asked

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._guard:
            if self._loop is None:
                tuning.apply()
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="pulumi-engine", daemon=True)
                self._thread.start()
            return self._loop


async def _cancel_others() -> None:
    others = asyncio.all_tasks() - {asyncio.current_task()}
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
