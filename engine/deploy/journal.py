"""The append-only record of one update; the checkpoint is its replay over the snapshot the update began with.

An entry is durable before the effect it announces and after the effect it reports. Replay is pure (`replay`); where
entries are kept is a `Journal`'s business (`backend/`). Source: pulumi `pkg/backend/journal.go`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from engine.deploy.graph import in_dependency_order, with_renamed_references, without_dangling_references
from engine.deploy.resource import PendingOperation, ResourceState
from engine.deploy.snapshot import Snapshot


class EntryKind(StrEnum):
    """BEGIN and FAILURE/SUCCESS bracket an effect; OUTPUTS is RegisterResourceOutputs."""

    BEGIN = "begin"
    SUCCESS = "success"
    FAILURE = "failure"
    OUTPUTS = "outputs"


@dataclass(frozen=True)
class JournalEntry:
    """One thing that is about to happen or has happened.

    Attributes:
        sequence: position in this update, from 0, without gaps.
        kind: see `EntryKind`.
        op: the step's operation (`create`, `update`, `same`, `delete`, `replace`, `read`, `refresh`, …: Pulumi's).
        step: number of the step within the update; BEGIN and its end share it.
        old: the state the step started from; None for a create.
        new: the state the step leads to; None for a delete, except for one that goes before its replacement: there it
            is the old state marked `pending_replacement`. For OUTPUTS: the state with its outputs.
    """

    sequence: int
    kind: EntryKind
    op: str
    step: int
    old: ResourceState | None
    new: ResourceState | None


class Journal(Protocol):
    """Where an update's entries go."""

    def append(self, entry: JournalEntry) -> None:
        """Return once the entry would survive a power cut. Called on the engine's thread, in order.

        Raises:
            StaleLease: the caller may not write any more.
        """
        ...


_PENDING_TYPES = {
    "create": "creating",
    "create-replacement": "creating",
    "update": "updating",
    "delete": "deleting",
    "delete-replaced": "deleting",
    "read": "reading",
    "read-replacement": "reading",
    "import": "importing",
    "import-replacement": "importing",
}
_REPLACEMENTS = frozenset({"create-replacement", "read-replacement", "import-replacement"})
_DELETES = frozenset({"delete", "delete-replaced", "remove-pending-replace"})


class Replay:
    """A snapshot that grows with a journal: `add` entries in order, then ask for `snapshot`.

    Resources an entry made come first, in the order they were made; resources of the base nothing touched follow.
    A same-step that changes nothing needs no entry: the order is mended by dependencies. Ends of a step whose URN the
    base has pending operations for settle those.
    """

    def __init__(self, base: Snapshot) -> None:
        self._metadata = base.metadata
        self._old: dict[int, ResourceState] = dict(enumerate(base.resources))
        self._new: dict[int, ResourceState] = {}
        self._next = len(self._old)
        self._places: dict[str, list[int]] = {}
        for place, state in self._old.items():
            self._places.setdefault(state.urn, []).append(place)
        self._carried = list(base.pending_operations)
        self._begun: dict[int, PendingOperation] = {}
        self._refreshed = False
        self._renamed: dict[str, str] = {}

    def add(self, entry: JournalEntry) -> None:
        """Take one more entry into account."""
        if entry.kind is EntryKind.OUTPUTS:
            self._replace_live(entry)
            return
        if entry.kind is EntryKind.BEGIN:
            self._begin(entry)
            return
        self._begun.pop(entry.step, None)
        urn = _subject(entry).urn
        self._carried = [p for p in self._carried if p.resource.urn != urn]
        if entry.kind is EntryKind.SUCCESS:
            self._succeed(entry)

    def snapshot(self) -> Snapshot:
        """What to store if the journal ended here."""
        resources = self.resources()
        if self._renamed:
            resources = with_renamed_references(resources, self._renamed)
        if self._refreshed:
            resources = without_dangling_references(resources)
        pending = [*self._carried, *self._begun.values()]
        return Snapshot(in_dependency_order(resources), pending, self._metadata)

    def resources(self) -> list[ResourceState]:
        """The resources as they are, in no promised order."""
        return [*self._new.values(), *self._old.values()]

    def _begin(self, entry: JournalEntry) -> None:
        if type_ := _PENDING_TYPES.get(entry.op):
            resource = entry.old if entry.op in _DELETES and entry.old else _subject(entry)
            self._begun[entry.step] = PendingOperation(type_, resource)

    def _succeed(self, entry: JournalEntry) -> None:
        if entry.op == "replace":
            return
        if entry.op == "refresh":
            self._refresh(entry)
        elif entry.op in _DELETES:
            self._delete(entry)
        else:
            self._make(entry)

    def _refresh(self, entry: JournalEntry) -> None:
        self._refreshed = True
        place = self._find(entry.old)
        if entry.new is None:
            self._remove(place)
        elif place is not None:
            self._put(place, entry.new)
        else:
            self._append(entry.new)

    def _delete(self, entry: JournalEntry) -> None:
        place = self._find(entry.old)
        if entry.new is not None and place is not None:
            self._put(place, entry.new)
        else:
            self._remove(place)

    def _make(self, entry: JournalEntry) -> None:
        place = self._find(entry.old)
        if place is not None:
            current = self._at(place)
            if entry.op in _REPLACEMENTS and not current.pending_replacement:
                self._put(place, current.with_(delete=True))
            else:
                self._remove(place)
        if entry.new is None:
            raise ValueError(f"journal entry {entry.sequence} ({entry.op}) lacks the state it made")
        if entry.old is not None and entry.old.urn != entry.new.urn:
            self._renamed[entry.old.urn] = entry.new.urn
        self._append(entry.new)

    def _replace_live(self, entry: JournalEntry) -> None:
        if entry.new is None:
            raise ValueError(f"journal entry {entry.sequence} (outputs) lacks its state")
        for place in self._places.get(entry.new.urn, ()):
            if not self._at(place).delete:
                self._put(place, entry.new)

    def _find(self, state: ResourceState | None) -> int | None:
        if state is None:
            return None
        places = [p for p in self._places.get(state.urn, ()) if self._at(p).id == state.id]
        exact = [p for p in places if self._at(p).delete == state.delete]
        return next(iter(exact or places), None)

    def _at(self, place: int) -> ResourceState:
        return self._new[place] if place in self._new else self._old[place]

    def _put(self, place: int, state: ResourceState) -> None:
        if place in self._new:
            self._new[place] = state
        else:
            self._old[place] = state

    def _append(self, state: ResourceState) -> None:
        self._new[self._next] = state
        self._places.setdefault(state.urn, []).append(self._next)
        self._next += 1

    def _remove(self, place: int | None) -> None:
        if place is None:
            return
        state = self._new.pop(place, None) or self._old.pop(place)
        self._places[state.urn].remove(place)


def _subject(entry: JournalEntry) -> ResourceState:
    state = entry.new or entry.old
    if state is None:
        raise ValueError(f"journal entry {entry.sequence} ({entry.op}) names no resource")
    return state


def replay(base: Snapshot, entries: Iterable[JournalEntry]) -> Snapshot:
    """The snapshot an update leaves that began with `base` and wrote `entries`.

    An effect that began and did not end is a pending operation; one that failed leaves the old state.
    """
    growing = Replay(base)
    for entry in entries:
        growing.add(entry)
    return growing.snapshot()
