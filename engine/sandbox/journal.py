"""What happened, in order, for checkers that trust no one's own account of it. Append-only."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

REQUESTS_KEPT = 50_000
"""Enough for ten hours at DigitalOcean's hourly limit; older ones make room."""


@dataclass(frozen=True)
class Entry:
    """One event.

    Attributes:
        kind: such as `droplet.created`; the list is in the README.
        at: Unix seconds.
    """

    sequence: int
    at: float
    account: str
    kind: str
    resource: str
    details: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RequestEntry:
    """One answered (or dropped) request; status 0 = the connection was dropped."""

    at: float
    account: str
    method: str
    path: str
    status: int
    fault: str = ""


@dataclass
class Journal:
    """Events for ever, requests up to a bound."""

    entries: list[Entry] = field(default_factory=list)
    requests: deque[RequestEntry] = field(default_factory=lambda: deque(maxlen=REQUESTS_KEPT))

    def add(self, at: float, account: str, kind: str, resource: object, **details: Any) -> Entry:
        """Append one event."""
        entry = Entry(len(self.entries) + 1, at, account, kind, str(resource), details)
        self.entries.append(entry)
        return entry
