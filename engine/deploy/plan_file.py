"""A plan's stored form: the JSON of `pulumi preview --save-plan`, with its names, order and omissions.

Knows no files. Source: pulumi `sdk/go/common/apitype/plan.go`, `pkg/resource/stack/plan.go`.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from engine.deploy.checkpoint import COMPATIBLE_VERSION, CheckpointCodec, CheckpointError, format_time, new_magic
from engine.deploy.goal import AliasSpec
from engine.deploy.plan import GoalPlan, Plan, PlanDiff, ResourcePlan
from engine.deploy.urn import urn_name, urn_type

_ALIAS_FIELDS = {
    "URN": "urn",
    "Name": "name",
    "Type": "type",
    "Project": "project",
    "Stack": "stack",
    "Parent": "parent",
    "NoParent": "no_parent",
}
_AGAIN = "make a new one with `pulumi preview --save-plan FILE`"


class PlanFileError(Exception):
    """A plan that must not be used; the message says what is wrong with it and what to do."""


def dump_plan(
    plan: Plan, codec: CheckpointCodec, *, config: Mapping[str, Any], now: datetime, show_secrets: bool = False
) -> dict[str, Any]:
    """The plan as JSON; `config` is the stack's configuration as its file has it."""
    version = f"v{COMPATIBLE_VERSION}"
    data: dict[str, Any] = {
        "manifest": {"time": format_time(now), "magic": new_magic(version), "version": version},
        "config": {key: config[key] for key in sorted(config)},
        "resourcePlans": {
            urn: _dump_resource(urn, plan.resources[urn], codec, show_secrets) for urn in sorted(plan.resources)
        },
    }
    return {key: value for key, value in data.items() if value}


def _dump_resource(urn: str, plan: ResourcePlan, codec: CheckpointCodec, show: bool) -> dict[str, Any]:
    data: dict[str, Any] = {}
    if plan.goal is not None:
        data["goal"] = _dump_goal(urn, plan.goal, codec, show)
    if plan.ops:
        data["steps"] = list(plan.ops)
    outputs = plan.outputs
    place = (urn, "plan", "state")
    data["state"] = None if outputs is None else codec.dump_properties(outputs, place, show_secrets=show)
    if plan.seed:
        data["seed"] = base64.b64encode(plan.seed).decode()
    return data


def _dump_goal(urn: str, goal: GoalPlan, codec: CheckpointCodec, show: bool) -> dict[str, Any]:
    optional: dict[str, Any] = {
        "dependencies": list(goal.dependencies),
        "provider": goal.provider,
        "propertyDependencies": {k: list(v) for k, v in sorted(goal.property_dependencies.items())},
    }
    more: dict[str, Any] = {
        "ignoreChanges": list(goal.ignore_changes),
        "additionalSecretOutputs": list(goal.additional_secret_outputs),
        "structuredAliases": [{k: getattr(a, name) for k, name in _ALIAS_FIELDS.items()} for a in goal.aliases],
        "id": goal.import_id,
    }
    replacing = {} if goal.delete_before_replace is None else {"deleteBeforeReplace": goal.delete_before_replace}
    timeouts = {op: seconds for op, seconds in sorted(goal.custom_timeouts.items()) if seconds}
    return {
        "type": goal.type,
        "name": goal.name,
        "custom": goal.custom,
        "inputDiff": _dump_diff((urn, "plan", "inputs"), goal.input_diff, codec, show),
        "outputDiff": _dump_diff((urn, "plan", "outputs"), goal.output_diff, codec, show),
        **({"parent": goal.parent} if goal.parent else {}),
        "protect": goal.protect,
        **{k: v for k, v in optional.items() if v},
        **replacing,
        **{k: v for k, v in more.items() if v},
        "customTimeouts": codec.dump_properties(timeouts, (urn, "plan", "timeouts")),
    }


def _dump_diff(place: tuple[str, ...], diff: PlanDiff, codec: CheckpointCodec, show: bool) -> dict[str, Any]:
    data: dict[str, Any] = {
        "adds": codec.dump_properties(diff.adds, (*place, "adds"), show_secrets=show),
        "deletes": list(diff.deletes),
        "updates": codec.dump_properties(diff.updates, (*place, "updates"), show_secrets=show),
    }
    return {key: value for key, value in data.items() if value}


def parse_plan(text: str | bytes, where: str, codec: CheckpointCodec, *, stack: str, project: str) -> Plan:
    """Read a plan that is to be used for a stack.

    Raises:
        PlanFileError: it is no plan, or the plan of another stack.
        SecretsError: a secret in it cannot be decrypted.
    """
    try:
        data = json.loads(text)
    except ValueError as err:
        raise PlanFileError(f"{where} is not complete JSON ({err}); {_AGAIN}") from err
    plans = data.get("resourcePlans", {}) if isinstance(data, dict) else None
    if not isinstance(plans, dict) or not isinstance(data.get("manifest"), dict):
        raise PlanFileError(f"{where} is not an update plan: it lacks `manifest` or `resourcePlans`; {_AGAIN}")
    ours = f"urn:pulumi:{stack}::{project}::"
    for urn in plans:
        if not urn.startswith(ours):
            raise PlanFileError(f"{where} is the plan of another stack: {urn} is not in {project}/{stack}; {_AGAIN}")
    try:
        return Plan({urn: _load_resource(urn, plan, codec) for urn, plan in plans.items()})
    except (KeyError, TypeError, AttributeError, ValueError, binascii.Error, CheckpointError) as err:
        raise PlanFileError(f"{where} breaks the format of update plans ({err!r}); {_AGAIN}") from err


def _load_resource(urn: str, data: Mapping[str, Any], codec: CheckpointCodec) -> ResourcePlan:
    goal, outputs = data.get("goal"), data.get("state")
    return ResourcePlan(
        goal=None if goal is None else _load_goal(urn, goal, codec),
        ops=tuple(str(op) for op in data.get("steps") or ()),
        outputs=None if outputs is None else codec.load_properties(outputs, (urn, "plan", "state")),
        seed=base64.b64decode(data.get("seed") or "", validate=True),
    )


def _load_goal(urn: str, data: Mapping[str, Any], codec: CheckpointCodec) -> GoalPlan:
    if (data["type"], data["name"]) != (urn_type(urn), urn_name(urn)):
        raise ValueError(f"the goal of {urn} is another resource's")
    replacing = data.get("deleteBeforeReplace")
    return GoalPlan(
        type=str(data["type"]),
        name=str(data["name"]),
        custom=bool(data["custom"]),
        input_diff=_load_diff((urn, "plan", "inputs"), data.get("inputDiff") or {}, codec),
        output_diff=_load_diff((urn, "plan", "outputs"), data.get("outputDiff") or {}, codec),
        parent=str(data.get("parent") or ""),
        protect=bool(data.get("protect")),
        dependencies=tuple(data.get("dependencies") or ()),
        provider=str(data.get("provider") or ""),
        property_dependencies={k: tuple(v or ()) for k, v in (data.get("propertyDependencies") or {}).items()},
        delete_before_replace=None if replacing is None else bool(replacing),
        ignore_changes=tuple(data.get("ignoreChanges") or ()),
        additional_secret_outputs=tuple(data.get("additionalSecretOutputs") or ()),
        aliases=tuple(_load_alias(a) for a in data.get("structuredAliases") or ()),
        import_id=str(data.get("id") or ""),
        custom_timeouts=dict(data.get("customTimeouts") or {}),
    )


def _load_alias(data: Mapping[str, Any]) -> AliasSpec:
    return AliasSpec(**{name: data[key] for key, name in _ALIAS_FIELDS.items() if data.get(key)})


def _load_diff(place: tuple[str, ...], data: Mapping[str, Any], codec: CheckpointCodec) -> PlanDiff:
    return PlanDiff(
        adds=codec.load_properties(data.get("adds") or {}, (*place, "adds")),
        deletes=tuple(data.get("deletes") or ()),
        updates=codec.load_properties(data.get("updates") or {}, (*place, "updates")),
    )
