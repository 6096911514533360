"""What of one update is under way: starts work, waits for it, and takes no more once something failed.

It does not know what the work is. Source: pulumi `worker_pool.go`, `deployment_executor.go`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from engine.deploy.events import EngineEvents
from engine.deploy.provider import ProviderError
from engine.deploy.step_executor import StepFailed
from engine.model.errors import StaleLease

_T = TypeVar("_T")
# A function, not a coroutine: a task that is cancelled before it starts must leave nothing unawaited.
Work = Callable[[], Coroutine[Any, Any, _T]]


class UpdateStopped(Exception):
    """The update takes no more requests: a step failed, or somebody cancelled."""


class Refused(Exception):
    """A request that cannot be met; the message names what and says what to do."""


class WorkerPool:
    """The tasks of one update, on the engine's event loop.

    Attributes:
        failed: something went wrong; with `--continue-on-error` the update goes on all the same.
        stopping: set when requests are turned away.
        stale: the lost lease, if that is why.
    """

    def __init__(self, events: EngineEvents) -> None:
        self._events = events
        self._tasks: set[asyncio.Task[Any]] = set()
        self.failed = False
        self.stopping = asyncio.Event()
        self.stale: StaleLease | None = None

    def stop(self) -> None:
        """Take no more requests; what runs may finish."""
        self.stopping.set()

    @property
    def stopped(self) -> bool:
        """Whether requests are turned away."""
        return self.stopping.is_set()

    def check_running(self) -> None:
        """Raises UpdateStopped once requests are turned away."""
        if self.stopped:
            raise UpdateStopped("resource monitor shut down")

    def fail(self, message: str, urn: str = "") -> None:
        """Report an error that is nobody's step."""
        self.failed = True
        self._events.diagnostic("error", message, urn=urn)

    async def wait_for_running(self) -> None:
        """Return once nothing runs any more."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    def abort_running(self) -> None:
        """Abandon what runs: begun effects stay pending operations."""
        for task in self._tasks:
            task.cancel()

    def run(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Start work the update waits for before it ends."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # taken, because a program that gave up its call never asks for it

    async def run_all(self, works: Sequence[Work[Any]]) -> None:
        """Run work nobody waits for an answer of, in parallel; failures are remembered, not raised."""
        await asyncio.gather(*(self.run(self._remembering(work)) for work in works), return_exceptions=True)

    async def _remembering(self, work: Work[Any]) -> None:
        try:
            await work()
        except StepFailed:
            self.failed = True
        except StaleLease as err:
            self._lose_lease(err)
        except Exception as err:  # noqa: BLE001 - the same as `_reporting`, where nobody waits for an answer
            self.fail(f"{type(err).__name__}: {err}")

    async def answer(self, work: Work[_T]) -> _T:
        """Do what the program asks for; its failure stops the update.

        Raises:
            UpdateStopped: this update takes no more requests, or this one failed.
            Refused, ProviderError: this request cannot be met; the update goes on.
        """
        self.check_running()
        # Shielded: a program that gives up a call must not interrupt the effect behind it.
        return await asyncio.shield(self.run(self._reporting(work)))

    async def _reporting(self, work: Work[_T]) -> _T:
        try:
            return await work()
        except StaleLease as err:
            self._lose_lease(err)
            raise UpdateStopped(err.message) from err
        except (StepFailed, asyncio.CancelledError) as err:
            self.failed = True
            self.stop()
            raise UpdateStopped("the update has failed") from err
        except (UpdateStopped, Refused, ProviderError):
            raise
        except Exception as err:  # a provider's bug must end the update with its words, not the engine
            self.fail(f"{type(err).__name__}: {err}")
            self.stop()
            raise UpdateStopped("the update has failed") from err

    def _lose_lease(self, err: StaleLease) -> None:
        self.stale = self.stale or err
        self.failed = True
        self.stop()
        self.abort_running()
