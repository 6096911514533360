"""The README's picture of a model's life is its life."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import engine.byom as package
from engine.model.byom import TRANSITIONS, Phase, advance
from engine.model.errors import IllegalTransition


def test_the_diagram_agrees_with_the_transitions() -> None:
    assert package.__file__ is not None
    text = (Path(package.__file__).parent / "README.md").read_text()
    diagram = re.search(r"```mermaid\nstateDiagram-v2\n(.*?)```", text, re.DOTALL)
    assert diagram is not None
    drawn = set(re.findall(r"^\s+(\w+) --> (\w+)", diagram.group(1), re.MULTILINE))
    assert drawn == {(start.value, end.value) for start, ends in TRANSITIONS.items() for end in ends}
    with pytest.raises(IllegalTransition):
        advance(Phase.DELETED, Phase.READY)
