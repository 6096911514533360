"""What a program asks for: one resource as it was registered or read, before the engine compares it with anything.

Not state (`resource.py`): a goal has neither id nor outputs. Source: pulumi `pkg/resource/goal.go`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.deploy.packages import PackageRequest
from engine.deploy.property import PropertyMap, PropertyValue
from engine.deploy.resource import ResourceState
from engine.deploy.urn import make_urn, urn_name, urn_type


@dataclass(frozen=True)
class AliasSpec:
    """Where a resource used to live; empty fields mean "as now". `no_parent` means it was a child of the stack."""

    urn: str = ""
    name: str = ""
    type: str = ""
    stack: str = ""
    project: str = ""
    parent: str = ""
    no_parent: bool = False


@dataclass(frozen=True)
class Goal:
    """The wish. Fields have the meaning of `ResourceState`'s; `None` means the program did not say.

    Attributes:
        plugin: the package that is to provide it.
    """

    type: str
    name: str
    custom: bool
    properties: PropertyMap = field(default_factory=dict)
    parent: str = ""
    provider: str = ""
    plugin: PackageRequest | None = None
    dependencies: Sequence[str] = ()
    property_dependencies: Mapping[str, Sequence[str]] = field(default_factory=dict)
    protect: bool = False
    delete_before_replace: bool | None = None
    ignore_changes: Sequence[str] = ()
    hide_diffs: Sequence[str] = ()
    replace_on_changes: Sequence[str] = ()
    additional_secret_outputs: Sequence[str] = ()
    aliases: Sequence[AliasSpec] = ()
    custom_timeouts: Mapping[str, float] = field(default_factory=dict)
    retain_on_delete: bool = False
    deleted_with: str = ""
    import_id: str = ""
    replace_with: Sequence[str] = ()
    replacement_trigger: PropertyValue = None
    hooks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    origin: Mapping[str, Any] = field(default_factory=dict)  # where the program asked for it, as checkpoints have it

    def new_state(self, urn: str, inputs: PropertyMap, old: ResourceState | None) -> ResourceState:
        """The state this goal leads to, before its id and outputs are known."""
        return ResourceState(
            urn=urn,
            type=self.type,
            custom=self.custom,
            inputs=inputs,
            parent=self.parent,
            provider=self.provider,
            protect=self.protect,
            dependencies=tuple(self.dependencies),
            property_dependencies={k: tuple(v) for k, v in self.property_dependencies.items()},
            additional_secret_outputs=tuple(self.additional_secret_outputs),
            custom_timeouts=dict(self.custom_timeouts),
            retain_on_delete=self.retain_on_delete,
            deleted_with=self.deleted_with,
            import_id=self.import_id,
            replace_with=tuple(self.replace_with),
            replacement_trigger=self.replacement_trigger,
            hooks=dict(self.hooks),
            refresh_before_update=old.refresh_before_update if old else False,
            ignore_changes=tuple(self.ignore_changes),
            hide_diffs=tuple(self.hide_diffs),
            replace_on_changes=tuple(self.replace_on_changes),
            created=old.created if old else "",
            modified=old.modified if old else "",
            extra=dict(self.origin),
        )


def alias_urns(goal: Goal, stack: str, project: str, parent_aliases: Sequence[str]) -> list[str]:
    """Every URN the resource may have had: its own aliases, and those its parent's former URNs imply.

    Source: pulumi `step_generator.go`, generateAliases and inheritedChildAlias.
    """
    found: list[str] = []
    for alias in goal.aliases:
        found.append(_collapse(alias, goal, stack, project))
    for former_parent in parent_aliases:
        found.append(_child_of(former_parent, goal, goal.name, goal.type, stack, project))
        for alias in goal.aliases:
            if not alias.urn and not alias.parent and not alias.no_parent:
                name, type_ = alias.name or goal.name, alias.type or goal.type
                found.append(_child_of(former_parent, goal, name, type_, stack, project))
    return list(dict.fromkeys(found))


def _collapse(alias: AliasSpec, goal: Goal, stack: str, project: str) -> str:
    if alias.urn:
        return alias.urn
    parent = "" if alias.no_parent else (alias.parent or goal.parent)
    return make_urn(alias.stack or stack, alias.project or project, parent, alias.type or goal.type,
                    alias.name or goal.name)  # fmt: skip


def _child_of(former_parent: str, goal: Goal, name: str, type_: str, stack: str, project: str) -> str:
    parent_name = urn_name(goal.parent)
    if urn_type(former_parent) == urn_type(goal.parent) and name.startswith(parent_name):
        name = urn_name(former_parent) + name[len(parent_name) :]
    return make_urn(stack, project, former_parent, type_, name)
