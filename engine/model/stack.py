"""The contract between stack programs and everybody else: names, configuration and outputs of stacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

PROJECT = "stackyard"
OWNER_TAG_PREFIX = "stackyard"


def stack_name(deployment_id: str) -> str:
    """The stack of a deployment: its id with a dash (`dep_x` → `dep-x`), legal as stack, tag and host name."""
    return deployment_id.replace("_", "-")


def deployment_id(stack: str) -> str:
    """The deployment of a stack: the reverse of `stack_name`; ids have one underscore, after their prefix."""
    return stack.replace("-", "_", 1)


def owner_tag(deployment_id: str) -> str:
    """The tag every cloud resource of a deployment carries; the sweeper lists by it."""
    return f"{OWNER_TAG_PREFIX}:{stack_name(deployment_id)}"


def installation_tag(installation_id: str) -> str:
    """The tag of everything one Stackyard installation owns; two installations may share a cloud account."""
    return f"{OWNER_TAG_PREFIX}-installation:{installation_id}"


@dataclass(frozen=True)
class ConfigText:
    """One value of a stack's configuration; `secret` ones are encrypted in `Pulumi.<stack>.yaml`."""

    value: str
    secret: bool = False

    def __repr__(self) -> str:
        return "ConfigText([secret])" if self.secret else f"ConfigText({self.value!r})"


@dataclass(frozen=True)
class StackRequest:
    """One stack: name (`dep-x`), inline program, and its whole configuration (full key → value)."""

    stack: str
    program: Callable[[], None]
    config: Mapping[str, ConfigText] = field(default_factory=dict)


@dataclass(frozen=True)
class StackOutputs:
    """Outputs every workload stack exports (program side: `stacks/spec.py`).

    Attributes:
        endpoints: base URLs, [n], n ≥ 0, same order as `replicas`.
        replicas: one mapping per replica with `id`, `name`, `address`, `phase`.
        ssh: how to log in, per replica; empty where there is no key.
        hourly_cost_usd: decimal text, for all replicas together.
        generation: generation of the spec this update realised.
        placement_revision: of the list of machines it realised; 0 where the program declares no list.
    """

    endpoints: list[str] = field(default_factory=list)
    replicas: list[dict[str, str]] = field(default_factory=list)
    ssh: list[str] = field(default_factory=list)
    hourly_cost_usd: str = "0"
    generation: int = 0
    placement_revision: int = 0

    @classmethod
    def from_outputs(cls, outputs: dict[str, Any]) -> StackOutputs:
        """Read plain stack outputs (secrets already opened); absent ones take their defaults (a destroyed stack)."""
        return cls(
            endpoints=[str(e) for e in outputs.get("endpoints", [])],
            replicas=[{str(k): str(v) for k, v in r.items()} for r in outputs.get("replicas", [])],
            ssh=[str(s) for s in outputs.get("ssh", [])],
            hourly_cost_usd=str(outputs.get("hourly_cost_usd", "0")),
            generation=int(outputs.get("generation", 0)),
            placement_revision=int(outputs.get("placement_revision", 0)),
        )
