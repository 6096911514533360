"""How much memory the bodies of requests take while they come and until they are answered. Reads none."""

from __future__ import annotations

from engine.gateway.routes import RETRY_AFTER_SECONDS
from engine.model.errors import RateLimited

_MIB = 1024 * 1024

MOST_OF_ORG = 512 * _MIB
MOST_BYTES = 2048 * _MIB
"""Of everybody: beyond that the process would be killed, and with it everybody's requests."""

SMALL_BYTES = 64 * 1024
"""Bodies up to this size are not counted: most are, and what the connections of all clients take is of that order."""


class Bodies:
    """All bodies of this process."""

    def __init__(self, most_of_org: int = MOST_OF_ORG, most_bytes: int = MOST_BYTES) -> None:
        self._most_of_org = most_of_org
        self._most_bytes = most_bytes
        self._of_org: dict[str, int] = {}
        self._all = 0

    def take(self, org_id: str, size: int) -> None:
        """Make room for `size` bytes more.

        Raises:
            RateLimited: the organisation's requests take too much already, or everybody's do.
        """
        held = self._of_org.get(org_id, 0)
        if held + size > self._most_of_org or self._all + size > self._most_bytes:
            raise RateLimited(
                f"bodies of requests that are not answered yet take {held} bytes of at most {self._most_of_org} for an "
                "organisation; try again when some are answered",
                retry_after_seconds=RETRY_AFTER_SECONDS, held_bytes=held, limit_bytes=self._most_of_org,
            )  # fmt: skip
        self._of_org[org_id] = held + size
        self._all += size

    def free(self, org_id: str, size: int) -> None:
        """The bytes were let go of."""
        self._all -= size
        self._of_org[org_id] -= size
        if not self._of_org[org_id]:
            del self._of_org[org_id]


class Body:
    """One body's share. `free` it in any case; again: no change."""

    __slots__ = ("_bodies", "_org_id", "_size", "_taken")

    def __init__(self, bodies: Bodies, org_id: str) -> None:
        self._bodies = bodies
        self._org_id = org_id
        self._size = self._taken = 0

    def grow(self, size: int) -> None:
        """So much came.

        Raises:
            RateLimited: there is no room for it.
        """
        self._size += size
        if self._size > SMALL_BYTES:
            self._bodies.take(self._org_id, self._size - self._taken)
            self._taken = self._size

    def free(self) -> None:
        if self._taken:
            self._bodies.free(self._org_id, self._taken)
            self._taken = 0
