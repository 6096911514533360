"""What workers that ask for their jobs (RunPod's protocol) may ask of the dispatcher. Not how they ask over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class TakenJob:
    """A job a worker was given; recorded as running, durably, before the worker sees it.

    Attributes:
        attempt: which time the job is begun, from 1.
        input: JSON text of what the client sent as `input`.
        execution_timeout_seconds: after so long it is `timed_out` and its id is among `stopped`.
    """

    id: str
    attempt: int
    input: bytes
    execution_timeout_seconds: float


@dataclass(frozen=True)
class Pinged:
    """What a ping tells a worker: the jobs it works on that nobody waits for any more (cancelled, timed out, given to
    another worker)."""

    stopped: frozenset[str]


class WorkerDesk(Protocol):
    """Where a worker takes jobs and brings results. Implemented by `dispatcher.Dispatcher`.

    A worker is named by its handler deployment's id and its name (`w7`); who calls has checked its token
    (`worker_token`). The first `take` of a worker makes its protocol RUNPOD.

    Raises (every method):
        NotFound: no such handler deployment, or it has no worker of this name (any more).
        Unavailable: another process dispatches; the worker tries again (its requests go round among processes).
    """

    def token_of(self, handler_id: str, worker: str) -> str:
        """The per-worker token this worker has to present."""
        ...

    async def take(
        self, handler_id: str, worker: str, *, limit: int = 1, wait_seconds: float = 0.0, holds_none: bool = False
    ) -> list[TakenJob]:
        """Up to `limit` more jobs for a worker, waiting up to `wait_seconds` for the first; empty: none came.

        A worker asks for as many as it has room for beside those it works on (its own concurrency less its
        occupancy, as `runpod` computes `jobs_needed`), so what it holds already does not count against `limit`. A
        draining worker gets none. Cancelling the call (the worker left) gives nothing away: what was started goes back.

        Args:
            holds_none: the worker says that it works on nothing (`job_in_progress=0`): what is believed to be with it
                was lost on the way there or its result on the way back, and is begun again like a dead worker's.
        """
        ...

    async def done(
        self, handler_id: str, worker: str, job_id: str, *, output: bytes | None = None, error: str | None = None
    ) -> bool:
        """Record a result: JSON text of the output, or what went wrong. False: it came too late and was dropped (the
        job is over, or belongs to another worker by now): answer 409."""
        ...

    async def stream(self, handler_id: str, worker: str, job_id: str, chunk: bytes) -> bool:
        """Add a partial output (JSON text) in the order of calls. False: too late, dropped."""
        ...

    async def progress(self, handler_id: str, worker: str, job_id: str, value: bytes) -> bool:
        """Replace the progress note (JSON text) of a running job; never touches a job that is over. False: dropped."""
        ...

    async def ping(self, handler_id: str, worker: str, job_ids: Sequence[str] = ()) -> Pinged:
        """The worker lives and works on these jobs; the answer says which of them to stop.

        Jobs that the dispatcher believes at this worker and that several pings in a row do not name stay as they are:
        pings of old `runpod` versions name none.
        """
        ...

    def stopped(self, handler_id: str, worker: str) -> frozenset[str]:
        """Jobs this worker was given and should stop; each is named until its next `done` or five minutes passed."""
        ...
