"""Logs for stores that cannot append: numbered blobs, each written once. Knows no store and no journal.

`<key>/00000000` is whoever's came first, and is made by one writer only; the others carry their writer's name. A writer
that was overtaken can therefore leave strays, which nobody reads, but neither mix into nor block its successor's log.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

from engine.deploy.backend.blobs import Blobs
from engine.model.errors import StaleLease

_FIRST = "00000000"
_READERS = 8  # a log of thousands of entries, each a request, is read within seconds


class SegmentedLogs:
    """The `Logs` of any store of blobs."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs

    def open(self, key: str, *, owner: str, guard: str) -> SegmentedLog:
        """See `Logs.open`."""
        return SegmentedLog(self._blobs, key, owner, guard)

    def read(self, key: str) -> bytes | None:
        """See `Logs.read`; a missing number ends the log."""
        first = self._blobs.get(f"{key}/{_FIRST}")
        if first is None:
            return None
        mine = _segments(self._blobs.keys(key), key, _owner(first.data))
        with ThreadPoolExecutor(_READERS) as pool:
            rest = list(pool.map(self._blobs.get, mine))
        parts = [first.data]
        for blob in rest:
            if blob is None:
                break
            parts.append(blob.data)
        return b"".join(parts)

    def exists(self, key: str) -> bool:
        """See `Logs.exists`."""
        return bool(self._blobs.existing([f"{key}/{_FIRST}"]))

    def delete(self, key: str) -> None:
        """See `Logs.delete`: without its first segment a log is none, so that goes first."""
        self._blobs.delete(f"{key}/{_FIRST}")
        for segment in self._blobs.keys(key):
            if not segment.endswith(f"/{_FIRST}"):
                self._blobs.delete(segment)


class SegmentedLog:
    """One log that is written; the first line of the first segment is an object with the owner as `lock`."""

    def __init__(self, blobs: Blobs, key: str, owner: str, guard: str) -> None:
        self._blobs = blobs
        self._key = key
        self._owner = owner
        self._guard = guard
        self._written: list[str] = []

    def append(self, lines: bytes) -> None:
        """See `Log.append`."""
        number = len(self._written)
        segment = _name(self._key, number, self._owner) if number else f"{self._key}/{_FIRST}"
        try:
            self._blobs.create(segment, lines, guard=self._guard)
        except FileExistsError as err:
            raise StaleLease(f"{segment} is another update's journal: this one has stopped") from err
        self._written.append(segment)

    def close(self, *, remove: bool) -> None:
        """See `Log.close`."""
        if remove and self._written:
            first = self._blobs.get(self._written[0])
            if first is not None and _owner(first.data) == self._owner:
                self._blobs.delete(self._written[0])
            for segment in self._written[1:]:
                self._blobs.delete(segment)


def _name(key: str, number: int, owner: str) -> str:
    return f"{key}/{number:08d}-{owner}"


def _segments(keys: list[str], key: str, owner: str) -> list[str]:
    """The segments after the first that its writer wrote, up to the first that is missing."""
    present = set(keys)
    found: list[str] = []
    while (segment := _name(key, len(found) + 1, owner)) in present:
        found.append(segment)
    return found


def _owner(first: bytes) -> str:
    try:
        return str(json.loads(first.partition(b"\n")[0]).get("lock", ""))
    except (ValueError, AttributeError):
        return ""
