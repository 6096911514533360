"""The append-only record of one update; the checkpoint is its replay over the snapshot the update began with.

An entry is durable before the effect it announces and after the effect it reports. Replay is pure (`replay`); where entries
are kept is a `Journal`'s business (`backend/`). Source: pulumi `pkg/engine/journal.go`, `pkg/backend/snapshot.go`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from engine.deploy.resource import ResourceState


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
        op: the step's operation (`create`, `update`, `same`, `delete`, `replace`, `read`, `refresh`, …; Pulumi's names).
        step: number of the step within the update; BEGIN and its end share it.
        old: the state the step started from; None for a create.
        new: the state the step leads to; None for a delete. For OUTPUTS: the state with its outputs.
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
