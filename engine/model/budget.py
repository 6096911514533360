"""The allowance of calls to a cloud's API, as its callers see it; shared accounts live in `engine/store`."""

from __future__ import annotations

from enum import IntEnum
from typing import Protocol


class Priority(IntEnum):
    """Who goes first when calls are scarce: what stops money before what spends it."""

    DELETE = 0
    READ = 1
    CREATE = 2


class CallBudget(Protocol):
    """Hands out permission to make one call to a cloud's API."""

    async def acquire(self, priority: Priority) -> None:
        """Wait until a call may be made."""
        ...

    def observe(self, *, limit: int, remaining: int, retry_after_seconds: float | None) -> None:
        """Learn from an answer's rate-limit headers; `retry_after_seconds` only on a 429."""
        ...


class Unlimited:
    """For one-off commands and tests that have no shared account."""

    async def acquire(self, priority: Priority) -> None:
        return None

    def observe(self, *, limit: int, remaining: int, retry_after_seconds: float | None) -> None:
        return None
