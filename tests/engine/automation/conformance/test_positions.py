"""Where in the program a resource was asked for: both engines record the same frames of the program's own files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.fakes.cells import Block, Cell
from tests.fakes.twins import Twin

pytestmark = pytest.mark.integration  # starts both engines


def program(step: int) -> None:
    Cell("a", text="x")
    Block("block", 1)


def own_frames(resource: dict[str, Any]) -> list[str]:
    """The positions in the project's folder."""
    positions = [resource.get("sourcePosition", ""), *(f.get("sourcePosition", "") for f in resource["stackTrace"])]
    return [p for p in positions if p.startswith("project:///") and "/../" not in p]


def test_positions_agree(twin: Callable[..., Twin]) -> None:
    found = []
    for side in ("official", "embedded"):
        checkpoint = twin(side, program).do("up 0").checkpoint
        assert checkpoint is not None
        resources = checkpoint["checkpoint"]["latest"]["resources"]
        found.append({r["urn"]: own_frames(r) for r in resources if "stackTrace" in r})
    assert found[0] == found[1]
    assert any("__main__.py#" in frame for frames in found[1].values() for frame in frames)
