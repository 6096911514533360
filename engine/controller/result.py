"""How one attempt at an operation ended, for whoever schedules the next. What it did is recorded elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True)
class Done:
    """Nothing is left to do: it succeeded, or it had ended already."""


@dataclass(frozen=True)
class RequeueAfter:
    """Cannot go on before `until`; the same operation is tried again then."""

    until: datetime
    reason: str


@dataclass(frozen=True)
class Failed:
    """It ended without success and says why; whether there will be a new operation is the reconciler's decision."""

    code: str
    message: str


Result = Done | RequeueAfter | Failed
