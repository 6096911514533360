"""One checkpoint entry: everything the engine remembers of a resource.

Source: pulumi `sdk/go/common/apitype/core.go` ResourceV3; JSON names are in `checkpoint.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from engine.deploy.property import PropertyMap, PropertyValue


@dataclass(frozen=True)
class ResourceState:
    """The state of one resource ("state" alone means nothing here).

    Attributes:
        urn, type, custom, id: identity; `id` is empty for components and for a create that never finished.
        inputs, outputs: property maps with `Secret`s; decrypted in memory.
        delete: an old copy that waits for its deletion (a replacement made its successor).
        provider: reference `URN::ID` of its provider; empty for components and providers.
        dependencies, property_dependencies: URNs.
        init_errors: it exists but is not usable.
        taint: somebody wants it replaced by the next update.
        custom_timeouts: operation → seconds.
        created, modified: RFC 3339 text with nanoseconds, kept as text because datetime has only microseconds.
        replacement_trigger: a value whose change replaces the resource; None means there is none.
        hide_diffs: paths whose differences are not shown.
        hooks: when (`BeforeCreate`, …) → names of the program's hooks.
        extra: fields of the checkpoint this engine does not interpret, kept for the next reader.
    """

    urn: str
    type: str
    custom: bool
    id: str = ""
    inputs: PropertyMap = field(default_factory=dict)
    outputs: PropertyMap = field(default_factory=dict)
    parent: str = ""
    provider: str = ""
    protect: bool = False
    external: bool = False
    delete: bool = False
    pending_replacement: bool = False
    taint: bool = False
    dependencies: Sequence[str] = ()
    property_dependencies: Mapping[str, Sequence[str]] = field(default_factory=dict)
    init_errors: Sequence[str] = ()
    additional_secret_outputs: Sequence[str] = ()
    aliases: Sequence[str] = ()
    custom_timeouts: Mapping[str, float] = field(default_factory=dict)
    import_id: str = ""
    retain_on_delete: bool = False
    deleted_with: str = ""
    replace_with: Sequence[str] = ()
    ignore_changes: Sequence[str] = ()
    hide_diffs: Sequence[str] = ()
    replace_on_changes: Sequence[str] = ()
    delete_before_replace: bool | None = None
    refresh_before_update: bool = False
    replacement_trigger: PropertyValue = None
    hooks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    created: str = ""
    modified: str = ""
    extra: Mapping[str, Any] = field(default_factory=dict)

    def with_(self, **changes: Any) -> ResourceState:
        """A copy with some fields changed."""
        return replace(self, **changes)


@dataclass(frozen=True)
class PendingOperation:
    """An effect that was begun and not seen to end. `type`: creating | updating | deleting | reading | importing."""

    type: str
    resource: ResourceState
