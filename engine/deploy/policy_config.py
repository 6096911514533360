"""The configuration of a policy pack: file, pack defaults and schema made one, per policy.

Pure; knows no process. Source: pulumi `pkg/resource/analyzer/config.go`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from jsonschema import Draft7Validator

from engine.deploy.events import EngineEvents
from engine.deploy.goal import Goal
from engine.deploy.property import PropertyMap
from engine.deploy.resource import ResourceState

LEVELS = ("advisory", "mandatory", "remediate", "disabled")
_ALL = "all"
_LEVEL_KEY = "enforcementLevel"


class PolicyError(Exception):
    """A policy pack cannot be used; the message says which and what to do."""


class PolicyReviewer(Protocol):
    """The policy packs of one update, as the engine needs them (`analyzers.py`).

    Attributes:
        violated: a mandatory policy was.
    """

    violated: bool

    async def start(self, events: EngineEvents, *, dry_run: bool) -> None:
        """Start and configure all packs."""
        ...

    async def review(
        self, urn: str, goal: Goal, inputs: PropertyMap, provider: ResourceState | None
    ) -> tuple[PropertyMap, bool]:
        """Show a resource to all packs; returns its inputs, remediated, and whether it may be."""
        ...

    async def review_stack(self, resources: Sequence[ResourceState], root: str) -> bool:
        """Show all resources, as they have become, to the stack policies; whether they may be."""
        ...

    async def close(self) -> None:
        """Give the packs' processes back."""
        ...


@dataclass(frozen=True)
class PolicySetting:
    """How one policy is to be enforced. `level` "": as before."""

    level: str = ""
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DeclaredPolicy:
    """What a pack says of one of its policies. `schema` and `required` describe its properties."""

    name: str
    level: str
    schema: Mapping[str, Any] = field(default_factory=dict)
    required: tuple[str, ...] = ()


def read_policy_config(path: Path) -> dict[str, PolicySetting]:
    """A `--policy-pack-config` file: policy name (or `all`) → level, or an object of level and properties.

    Raises:
        PolicyError: it cannot be read, or says something else.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as err:
        raise PolicyError(f"the policy pack configuration {path} cannot be read: {err.strerror}") from err
    except ValueError as err:
        raise PolicyError(f"the policy pack configuration {path} is not valid JSON: {err}") from err
    if not isinstance(data, dict):
        raise PolicyError(f"the policy pack configuration {path} must be an object: policy name → configuration")
    return {name: _setting(path, name, value) for name, value in data.items()}


def _setting(path: Path, name: str, value: Any) -> PolicySetting:
    if isinstance(value, str):
        value = {_LEVEL_KEY: value}
    if not isinstance(value, dict):
        raise PolicyError(f"{path}: {name!r} must be an enforcement level or an object")
    level = value.get(_LEVEL_KEY, "")
    if level and level not in LEVELS:
        raise PolicyError(f"{path}: {name!r}: {level!r} is no enforcement level; write one of {', '.join(LEVELS)}")
    properties = {key: item for key, item in value.items() if key != _LEVEL_KEY}
    if name == _ALL and properties:
        raise PolicyError(f"{path}: 'all' can only set an enforcement level")
    return PolicySetting(level, properties)


def reconcile(
    declared: list[DeclaredPolicy], initial: Mapping[str, PolicySetting], given: Mapping[str, PolicySetting]
) -> dict[str, PolicySetting]:
    """Every policy's setting: its own declaration, then the pack's initial configuration, then what the user gave.

    Raises:
        PolicyError: a policy's properties do not fit its schema, or a policy that does not exist is configured.
    """
    known = {policy.name for policy in declared}
    if unknown := sorted(set(given) - known - {_ALL}):
        raise PolicyError(f"the pack has no policy {unknown[0]!r} to configure; it has {', '.join(sorted(known))}")
    settings = {policy.name: _settled(policy, initial, given) for policy in declared}
    problems = [problem for policy in declared for problem in _problems(policy, settings[policy.name])]
    if problems:
        raise PolicyError("validating policy config: " + "; ".join(problems))
    return settings


def _settled(
    policy: DeclaredPolicy, initial: Mapping[str, PolicySetting], given: Mapping[str, PolicySetting]
) -> PolicySetting:
    level = policy.level
    properties = {
        key: schema["default"]
        for key, schema in policy.schema.items()
        if isinstance(schema, Mapping) and "default" in schema
    }
    for source in (initial, given):
        for name in (_ALL, policy.name):
            setting = source.get(name, PolicySetting())
            level = setting.level or level
            properties.update(setting.properties)
    return PolicySetting(level, properties)


def _problems(policy: DeclaredPolicy, setting: PolicySetting) -> list[str]:
    if setting.level == "disabled" or not (policy.schema or policy.required):
        return []
    schema = {"type": "object", "properties": dict(policy.schema), "required": list(policy.required)}
    errors = sorted(Draft7Validator(schema).iter_errors(dict(setting.properties)), key=str)
    return [f"{policy.name}: {'.'.join(map(str, e.path)) + ': ' if e.path else ''}{e.message}" for e in errors]
