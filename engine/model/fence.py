"""What an engine needs to know of leases: may I still write? Implemented in `engine/store/leases.py`."""

from __future__ import annotations

from typing import Protocol


class Fence(Protocol):
    """Guards every durable write and every effect of one stack operation."""

    @property
    def token(self) -> int:
        """The lease's fencing token; grows with each new holder of the same stack."""
        ...

    def check(self) -> None:
        """Return while the lease is held; may be called from any thread.

        Raises:
            StaleLease: somebody else holds it or it ran out.
        """
        ...

    def holder_is_dead(self, lock_owner: str) -> bool:
        """Whether a backend lock written by `lock_owner` (an executor id) belongs to a process whose lease ended."""
        ...


class NoFence:
    """For an operator's own runs, where the backend's lock file is the only guard."""

    token = 0

    def check(self) -> None:
        return None

    def holder_is_dead(self, lock_owner: str) -> bool:
        return False
