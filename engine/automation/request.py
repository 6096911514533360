"""What the stack driver is asked to do: a stack's name, its program and its configuration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


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
class StackResult:
    """How a stack operation ended.

    Attributes:
        outputs: plain stack outputs, secrets opened ({} after destroy and preview).
        resource_changes: operation → count (`create`, `same`, `delete`, …).
        seconds: wall time of the operation.
    """

    outputs: dict[str, Any]
    resource_changes: dict[str, int]
    seconds: float
