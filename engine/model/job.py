"""A job: one invocation of a handler deployment, and the life it goes through exactly once."""

from __future__ import annotations

from collections.abc import Mapping
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
