"""What the stack driver answers; what it is asked (`StackRequest`) is in `engine/model/stack.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.model.stack import ConfigText, StackRequest

__all__ = ["ConfigText", "StackRequest", "StackResult"]


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
