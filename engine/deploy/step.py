"""One operation on one resource, decided but not done.

Not the doing (`step_executor.py`) and not the deciding (`step_generator.py`). Source: pulumi
`pkg/resource/deploy/step.go`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from engine.deploy.provider import PropertyDiff
from engine.deploy.resource import ResourceState


class Op(StrEnum):
    """Pulumi's names, as events and journals show them."""

    SAME = "same"
    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    REPLACE = "replace"
    CREATE_REPLACEMENT = "create-replacement"
    DELETE_REPLACED = "delete-replaced"
    READ = "read"
    READ_REPLACEMENT = "read-replacement"
    IMPORT = "import"
    IMPORT_REPLACEMENT = "import-replacement"
    REFRESH = "refresh"
    REMOVE_PENDING_REPLACE = "remove-pending-replace"


# Operations nobody outside the engine notices: they need no record before they happen.
HARMLESS = frozenset({Op.SAME, Op.REPLACE, Op.REFRESH, Op.REMOVE_PENDING_REPLACE})


@dataclass(frozen=True)
class Step:
    """A decided operation.

    Attributes:
        old, new: the states it starts from and leads to; `new` lacks id and outputs until it is done.
        keys: properties that force a replacement; diffs: properties that differ.
        logical: whether people count it (a replacement's two physical halves are not counted, the `replace` is).
        pending_replacement: a delete that keeps the old state as a promise to create the new one.
        ignore_changes: paths the provider must leave alone in an update.
    """

    op: Op
    urn: str
    old: ResourceState | None = None
    new: ResourceState | None = None
    keys: Sequence[str] = ()
    diffs: Sequence[str] = ()
    detailed_diff: Mapping[str, PropertyDiff] = field(default_factory=dict)
    logical: bool = True
    pending_replacement: bool = False

    @property
    def name(self) -> str:
        """The operation as events and summaries call it: what was only read is not deleted but let go."""
        if self.state.external and self.op in (Op.DELETE, Op.DELETE_REPLACED):
            return "discard" if self.op is Op.DELETE else "discard-replaced"
        return str(self.op)

    @property
    def state(self) -> ResourceState:
        """The state the step is about: the new one, or the old one of a delete."""
        state = self.new or self.old
        if state is None:
            raise ValueError(f"step {self.op} of {self.urn} has neither an old nor a new state")
        return state
