"""The engine's pen: numbers journal entries, writes them, and keeps the snapshot they amount to so far.

Previews write nothing and keep the snapshot all the same. Not the journal's storage (`backend/`).
"""

from __future__ import annotations

from engine.deploy.diff import is_same_record
from engine.deploy.journal import EntryKind, Journal, JournalEntry, Replay
from engine.deploy.resource import ResourceState
from engine.deploy.snapshot import Snapshot
from engine.deploy.step import Op
from engine.model.fence import Fence


class Ledger:
    """One update's record. All methods may raise `StaleLease`."""

    def __init__(self, base: Snapshot, journal: Journal, fence: Fence, *, dry_run: bool) -> None:
        self._journal = journal
        self._fence = fence
        self._dry_run = dry_run
        self._replay = Replay(base)
        self._sequence = 0
        self._steps = 0

    def begin(self, op: Op, old: ResourceState | None, new: ResourceState | None) -> int:
        """Announce an effect; returns the number its end must carry."""
        number = self.next_step()
        self._write(EntryKind.BEGIN, op, number, old, new)
        return number

    def next_step(self) -> int:
        """A number for a step that needs no announcement."""
        self._steps += 1
        return self._steps

    def succeed(self, op: Op, number: int, old: ResourceState | None, new: ResourceState | None) -> None:
        """Record what became of a step; a same-step that changes nothing is not worth an entry."""
        if op is Op.REPLACE:
            return
        if op is Op.SAME and old is not None and new is not None and is_same_record(old, new):
            return
        self._write(EntryKind.SUCCESS, op, number, old, new)

    def fail(self, op: Op, number: int, old: ResourceState | None, new: ResourceState | None) -> None:
        """Record that a step failed and left nothing."""
        self._write(EntryKind.FAILURE, op, number, old, new)

    def outputs(self, before: ResourceState, after: ResourceState) -> None:
        """Record registered outputs, where they differ."""
        if before.outputs != after.outputs:
            self._write(EntryKind.OUTPUTS, Op.SAME, self.next_step(), before, after)

    def resources(self) -> list[ResourceState]:
        """The resources as they are now."""
        return self._replay.resources()

    def snapshot(self) -> Snapshot:
        """The snapshot so far: exactly the replay of what was written."""
        return self._replay.snapshot()

    def _write(
        self, kind: EntryKind, op: Op, number: int, old: ResourceState | None, new: ResourceState | None
    ) -> None:
        entry = JournalEntry(self._sequence, kind, str(op), number, old, new)
        if not self._dry_run:
            self._fence.check()
            self._journal.append(entry)
        self._sequence += 1
        self._replay.add(entry)
