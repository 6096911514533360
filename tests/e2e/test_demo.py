"""The demo's own steps, on a fresh installation."""

from typing import Any

import pytest

from engine.model.clock import SystemClock
from engine.proof.demo import Demo
from engine.proof.installation import Installation

pytestmark = pytest.mark.e2e


class Silent:
    def __init__(self) -> None:
        self.phases: list[str] = []
        self.text = ""

    def step(self, title: str) -> None: ...

    def say(self, text: str) -> None: ...

    def phase(self, deployment: dict[str, Any]) -> None:
        if self.phases[-1:] != [deployment["status"]]:
            self.phases.append(deployment["status"])

    def token(self, text: str) -> None:
        self.text += text

    def stack(self, stack: dict[str, Any]) -> None:
        self.outputs = stack["outputs"]


def test_every_step_of_the_demo_happens(installation: Installation) -> None:
    narrator = Silent()
    result = Demo(installation, narrator, SystemClock().monotonic).run(keep=False)
    assert narrator.phases[0] == "provisioning"
    assert [p for p in narrator.phases if p in ("active", "inactive")][0::2][0] == "active"
    assert narrator.phases[-1] == "inactive"
    assert len(narrator.text.split()) > 5
    assert narrator.outputs["endpoints"][0].startswith("https://127.")
    assert float(result.cost_usd) > 0
