"""A job: one invocation of a handler deployment, and the life it goes through exactly once."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from types import MappingProxyType

from engine.model.errors import IllegalTransition


class JobState(StrEnum):
    """Place of a job in its life; documents call it `status`."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"

    @property
    def is_terminal(self) -> bool:
        return self in TERMINAL


TERMINAL = frozenset({JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED, JobState.TIMED_OUT})

TRANSITIONS: Mapping[JobState, frozenset[JobState]] = MappingProxyType(
    {
        JobState.QUEUED: frozenset({JobState.RUNNING, JobState.FAILED, JobState.CANCELLED, JobState.TIMED_OUT}),
        JobState.RUNNING: TERMINAL | {JobState.QUEUED},  # its worker died: it is begun again
        **{state: frozenset() for state in TERMINAL},
    }
)


def advance(current: JobState, to: JobState) -> JobState:
    """The only way a job's state changes.

    Raises:
        IllegalTransition: `to` may not follow `current`; a terminal state is never left.
    """
    if to in TRANSITIONS[current]:
        return to
    raise IllegalTransition(f"a job cannot go from {current} to {to}", current=current, to=to)


class Reason(StrEnum):
    """Why a job ended as it did, for programs; the sentence is its `error`."""

    DONE = ""
    HANDLER_ERROR = "handler_error"  # the handler said so
    BAD_ANSWER = "bad_answer"  # what the worker answered is not what a handler answers
    WORKER_LOST = "worker_lost"  # its workers died under it, as often as it may be begun
    EXECUTION_TIMEOUT = "execution_timeout"
    EXPIRED = "expired"  # nobody could begin it in the time it had
    CANCELLED = "cancelled"
    PURGED = "purged"  # with its whole queue
    HANDLER_GONE = "handler_gone"  # the deployment was deleted
    SUSPENDED = "suspended"


DEFAULT_TTL = timedelta(hours=24)
MAX_TTL = timedelta(days=7)
MIN_EXECUTION_TIMEOUT = timedelta(milliseconds=100)
MAX_EXECUTION_TIMEOUT = timedelta(days=1)

MAX_ASYNC_BYTES = 10 * 1024 * 1024
MAX_SYNC_BYTES = 20 * 1024 * 1024
MAX_OUTPUT_BYTES = 20 * 1024 * 1024
"""What comes out is held to what may go in."""
