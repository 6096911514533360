"""An update plan: what an update may do to each resource, as a preview found it. Pure: values and their checks.

Not its file (`plan_file.py`) and not the course of an update that makes or keeps one (`planning.py`). Source: pulumi
`pkg/resource/deploy/plan.go`; ConstrainedTo in `step.go`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.deploy.goal import AliasSpec, Goal
from engine.deploy.property import (
    UNKNOWN,
    UNKNOWN_VALUE,
    Archive,
    Asset,
    Output,
    PropertyMap,
    PropertyValue,
    ResourceReference,
    Secret,
)
from engine.deploy.resource import ResourceState
from engine.deploy.step import Op
from engine.deploy.urn import parse_reference, urn_name


class PlanViolation(Exception):
    """The program wants what the plan does not allow; the message is Pulumi's own, `urn` the resource's."""

    def __init__(self, message: str, urn: str = "") -> None:
        super().__init__(message)
        self.urn = urn


@dataclass(frozen=True)
class PlanDiff:
    """How a property map is to change; an unknown stands for any value, also for none."""

    adds: PropertyMap = field(default_factory=dict)
    deletes: Sequence[str] = ()
    updates: PropertyMap = field(default_factory=dict)


@dataclass(frozen=True)
class GoalPlan:
    """What the program wanted of one resource; its options must be just these. Fields are those of `Goal`."""

    type: str
    name: str
    custom: bool
    input_diff: PlanDiff = field(default_factory=PlanDiff)
    output_diff: PlanDiff = field(default_factory=PlanDiff)
    parent: str = ""
    protect: bool = False
    dependencies: Sequence[str] = ()
    provider: str = ""
    property_dependencies: Mapping[str, Sequence[str]] = field(default_factory=dict)
    delete_before_replace: bool | None = None
    ignore_changes: Sequence[str] = ()
    additional_secret_outputs: Sequence[str] = ()
    aliases: Sequence[AliasSpec] = ()
    import_id: str = ""
    custom_timeouts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ResourcePlan:
    """What may happen to one resource.

    Attributes:
        goal: None where it is to be deleted.
        ops: its operations, in order.
        outputs: what the preview thought they would be; advice only. None: nobody said.
        seed: the random bytes its names are made from.
    """

    goal: GoalPlan | None = None
    ops: Sequence[str] = ()
    outputs: PropertyMap | None = None
    seed: bytes = b""


@dataclass(frozen=True)
class Plan:
    """The resources of an update by URN. A resource that is not in it must not change."""

    resources: Mapping[str, ResourcePlan] = field(default_factory=dict)


_MILDER: Mapping[str, tuple[str, ...]] = {
    Op.CREATE: (Op.SAME,),
    Op.UPDATE: (Op.SAME,),
    Op.REPLACE: (Op.SAME, Op.UPDATE),
    Op.CREATE_REPLACEMENT: (Op.SAME, Op.UPDATE),
    Op.DELETE_REPLACED: (Op.SAME, Op.UPDATE),
}


def is_allowed(op: str, planned: str) -> bool:
    """Whether an operation does no more than the planned one."""
    return op == planned or op in _MILDER.get(planned, ())


def plan_goal(goal: Goal, olds: PropertyMap, news: PropertyMap) -> GoalPlan:
    """What the plan keeps of a goal; `olds` and `news` are its checked inputs before and after."""
    return GoalPlan(
        type=goal.type,
        name=goal.name,
        custom=goal.custom,
        input_diff=diff_properties(olds, news),
        parent=goal.parent,
        protect=goal.protect,
        dependencies=tuple(goal.dependencies),
        provider=goal.provider,
        property_dependencies=goal.property_dependencies,
        delete_before_replace=goal.delete_before_replace,
        ignore_changes=tuple(goal.ignore_changes),
        additional_secret_outputs=tuple(goal.additional_secret_outputs),
        aliases=tuple(goal.aliases),
        import_id=goal.import_id,
        custom_timeouts=goal.custom_timeouts,
    )


def unchanged_goal(old: ResourceState) -> GoalPlan:
    """The plan of a resource that is in none: as it is."""
    return GoalPlan(
        type=old.type,
        name=urn_name(old.urn),
        custom=old.custom,
        parent=old.parent,
        protect=old.protect,
        dependencies=tuple(old.dependencies),
        provider=old.provider,
        property_dependencies=old.property_dependencies,
        additional_secret_outputs=tuple(old.additional_secret_outputs),
        aliases=tuple(AliasSpec(urn=urn) for urn in old.aliases),
        custom_timeouts=old.custom_timeouts,
    )


def diff_properties(olds: PropertyMap, news: PropertyMap) -> PlanDiff:
    """The changes from one property map to another."""
    adds, updates = {}, {}
    deletes = [k for k, v in olds.items() if v is not None and news.get(k) is None]
    for key, value in news.items():
        old = olds.get(key)
        if value is None or old == value:
            continue
        if old is None:
            adds[key] = value
        else:
            updates[key] = value
    return PlanDiff(adds, deletes, updates)


def check_goal(planned: GoalPlan | None, goal: Goal, olds: PropertyMap, news: PropertyMap) -> None:
    """Compare what the program wants now with what it wanted in the plan.

    Raises:
        PlanViolation: they differ where they must not.
    """
    if planned is None:
        raise PlanViolation("resource unexpectedly not deleted")
    for difference in _option_differences(planned, goal):
        raise PlanViolation(difference)
    check_diff(planned.input_diff, olds, news)
    for key, urns in planned.property_dependencies.items():
        now = goal.property_dependencies.get(key)
        if now is not None and (change := _set_change(urns, now)):
            raise PlanViolation(f"dependencies for {key} changed: {change}")


def _option_differences(planned: GoalPlan, goal: Goal) -> Iterator[str]:
    if planned.custom != goal.custom:
        yield f"resource kind changed (expected {'custom' if planned.custom else 'component'})"
    if _provider_changed(planned.provider, goal.provider):
        yield f"provider changed (expected {planned.provider})"
    if planned.parent != goal.parent:
        yield f"parent changed (expected {planned.parent})"
    if planned.protect != goal.protect:
        yield f"protect changed (expected {_go_text(planned.protect)})"
    if planned.delete_before_replace != goal.delete_before_replace:
        wanted = planned.delete_before_replace
        yield f"deleteBeforeReplace changed (expected {'no value' if wanted is None else _go_text(wanted)})"
    if planned.import_id != goal.import_id:
        yield f"importID changed (expected {planned.import_id})"
    for op in ("create", "update", "delete", "read"):
        if planned.custom_timeouts.get(op, 0) != goal.custom_timeouts.get(op, 0):
            yield f"{op} timeout changed (expected {_go_text(planned.custom_timeouts.get(op, 0))})"
    for name, before, after in (
        ("ignoreChanges", planned.ignore_changes, goal.ignore_changes),
        ("additionalSecretOutputs", planned.additional_secret_outputs, goal.additional_secret_outputs),
        ("dependencies", planned.dependencies, goal.dependencies),
        ("aliases", [_alias_text(a) for a in planned.aliases], [_alias_text(a) for a in goal.aliases]),
    ):
        if change := _set_change(before, after):
            yield f"{name} changed: {change}"


def _provider_changed(planned: str, now: str) -> bool:
    if planned == now:
        return False
    if not planned or not now:
        return True
    (planned_urn, planned_id), (urn, _) = parse_reference(planned), parse_reference(now)
    return planned_urn != urn or planned_id != UNKNOWN_VALUE  # a provider the preview would have made has no id yet


def _set_change(before: Sequence[str], after: Sequence[str]) -> str:
    added, deleted = sorted(set(after) - set(before)), sorted(set(before) - set(after))
    words = [f"added {', '.join(added)}"] if added else []
    return "; ".join([*words, f"deleted {', '.join(deleted)}"] if deleted else words)


def _alias_text(alias: AliasSpec) -> str:
    return alias.urn or " ".join(
        (alias.name, alias.type, alias.project, alias.stack, alias.parent, _go_text(alias.no_parent))
    )


def check_diff(planned: PlanDiff, olds: PropertyMap, news: PropertyMap) -> None:
    """Check that properties change as planned, or less.

    Raises:
        PlanViolation: they do not; the message names each: what the plan says (`+~-=`), what happens, and the values.
    """
    changes = [_change_text(planned, key, *what) for key, what in _violations(planned, olds, news)]
    if changes:
        raise PlanViolation(f"properties changed: {', '.join(sorted(changes))}")


def _violations(
    planned: PlanDiff, olds: PropertyMap, news: PropertyMap
) -> Iterator[tuple[str, tuple[str, PropertyValue]]]:
    """(property, (what happens to it, its new value)) of those the plan does not allow."""
    for key in dict.fromkeys([*olds, *news, *planned.adds, *planned.updates, *planned.deletes]):
        happening, value = _happening(olds.get(key), news.get(key), known_before=key in olds)
        if key in planned.adds:
            # To have it is planned: it may be there already, or be there with another value.
            allowed = happening in ("+", "~", "=") and _fits(planned.adds[key], value)
            allowed = allowed or (happening in ("-", "") and planned.adds[key] is UNKNOWN and olds.get(key) is None)
        elif key in planned.updates:
            allowed = happening in ("~", "=") and _fits(planned.updates[key], value)
            allowed = allowed or (happening in ("-", "") and planned.updates[key] is UNKNOWN)
        elif key in planned.deletes:
            allowed = happening in ("-", "")
        else:
            allowed = happening in ("=", "")
        if not allowed:
            yield key, (happening or "-", value)


def _happening(old: PropertyValue, new: PropertyValue, *, known_before: bool) -> tuple[str, PropertyValue]:
    """What becomes of a property: `+` added, `~` changed, `-` deleted, `=` stays, "" is not there."""
    if new is None:
        return ("-" if known_before and old is not None and old is not UNKNOWN else "", None)
    if old is None:
        return "+", new
    return ("=" if _fits(old, new) else "~"), new


def _fits(planned: PropertyValue, now: PropertyValue) -> bool:
    """Whether two values are equal, unknowns being equal to everything (pulumi: DeepEqualsIncludeUnknowns)."""
    if planned is UNKNOWN or now is UNKNOWN:
        return True
    if isinstance(planned, Secret) and isinstance(now, Secret):
        return _fits(planned.value, now.value)
    if isinstance(planned, dict) and isinstance(now, dict):
        extra = any(v is not None for k, v in now.items() if k not in planned)
        return not extra and all(
            _fits(v, now[k]) if k in now else v is None or v is UNKNOWN for k, v in planned.items()
        )
    if isinstance(planned, list) and isinstance(now, list):
        return len(planned) == len(now) and all(_fits(p, n) for p, n in zip(planned, now, strict=True))
    if isinstance(planned, ResourceReference) and isinstance(now, ResourceReference):
        return planned.urn == now.urn and _fits(planned.id, now.id)
    if isinstance(planned, bool) or isinstance(now, bool):
        return planned is now  # in Python True == 1
    return bool(planned == now)


def _change_text(planned: PlanDiff, key: str, actual: str, value: PropertyValue) -> str:
    expected: PropertyValue = None
    if key in planned.adds:
        sign, expected = "+", planned.adds[key]
    elif key in planned.updates:
        sign, expected = "~", planned.updates[key]
    else:
        sign = "-" if key in planned.deletes else "="
    texts = [_shown(v) for v in (expected, value) if v is not None]
    return f"{sign}{actual}{key}" + (f"[{'!='.join(texts)}]" if texts else "")


def _shown(value: PropertyValue) -> str:
    """A value as Pulumi's messages show it, but never a secret."""
    if value is UNKNOWN or (isinstance(value, Output) and not value.known):
        return "output<string>{}"
    if isinstance(value, Output):
        return _shown(Secret(value.value) if value.secret else value.value)
    if isinstance(value, Secret):
        return "{[secret]}"
    if isinstance(value, dict):
        return "{map[" + " ".join(f"{k}:{_shown(value[k])}" for k in sorted(value)) + "]}"
    if isinstance(value, list):
        return "{[" + " ".join(_shown(v) for v in value) + "]}"
    if isinstance(value, Asset | Archive):
        return "{" + str(value.fields.get("hash", "")) + "}"
    if isinstance(value, ResourceReference):
        return "{" + value.urn + "}"
    return "{" + _go_text(value) + "}"


def _go_text(value: Any) -> str:
    """A plain value as Go prints it."""
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return str(int(value))
    return str(value)
