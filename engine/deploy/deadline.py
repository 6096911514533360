"""A deadline for programs that cannot be killed: inline ones are threads, which end at their next call of the engine.

Programs in folders have theirs in `local_program.py`, where the process is killed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from engine.deploy.program import ProgramSource
from engine.deploy.update_target import UpdateTarget

_LET_GO_SECONDS = 5.0  # a source that was told to stop answers at once; nobody waits for one that does not


class TimedProgram:
    """A `ProgramSource` that is waited for until its deadline, and no longer.

    Args:
        deadline_seconds: how long the program may take in all, waiting for its resources included.
        on_abandoned: told when a program is left running: its process should be started anew.
    """

    def __init__(self, inner: ProgramSource, deadline_seconds: float, on_abandoned: Callable[[], None]) -> None:
        self._inner = inner
        self._deadline_seconds = deadline_seconds
        self._on_abandoned = on_abandoned
        self._running: asyncio.Future[str] | None = None

    async def run(
        self, *, monitor_address: str, engine_address: str, target: UpdateTarget, dry_run: bool, parallel: int
    ) -> str:
        """Run the program to its end or its deadline; returns its error ("" = it succeeded)."""
        running = self._running = asyncio.ensure_future(
            self._inner.run(
                monitor_address=monitor_address,
                engine_address=engine_address,
                target=target,
                dry_run=dry_run,
                parallel=parallel,
            )
        )
        try:
            await asyncio.wait({running}, timeout=self._deadline_seconds)
            if running.done():
                return running.result()
            await self.cancel()
            await asyncio.wait({running}, timeout=_LET_GO_SECONDS)
        finally:
            running.cancel()
        return (
            f"the program did not end within its deadline of {self._deadline_seconds:g} seconds; it is stopped at its "
            "next call of the engine, and what it had registered is saved"
        )

    async def cancel(self) -> None:
        """Wait no longer."""
        if self._running is not None and not self._running.done():
            self._on_abandoned()
        await self._inner.cancel()
