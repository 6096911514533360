"""Figures of a benchmark: name → value and unit, with the peer's value where it ran in the same call."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One measured value; `peer_value` only where the peer ran beside it."""

    value: float
    unit: str
    peer: str = ""
    peer_value: float | None = None

    def to_json(self) -> dict[str, Any]:
        """As `--json` prints it; `ratio` is the peer's value over ours."""
        shown: dict[str, Any] = {"value": round(self.value, 4), "unit": self.unit}
        if self.peer_value is not None:
            ratio = round(self.peer_value / self.value, 2)
            shown |= {"peer": self.peer, "peer_value": round(self.peer_value, 4), "ratio": ratio}
        return shown


def dumps(figures: Mapping[str, Figure]) -> str:
    """One JSON object for all figures of a benchmark."""
    return json.dumps({name: figure.to_json() for name, figure in figures.items()}, indent=1)
