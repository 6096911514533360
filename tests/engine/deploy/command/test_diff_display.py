"""`--diff` as the official engine printed it: its recorded events through our display give its recorded text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from engine.deploy.command.console import Console
from engine.deploy.command.diff_display import DiffDisplay
from engine.deploy.command.display import Showing
from engine.deploy.update import UpdateMode
from engine.model.clock import SystemClock

RECORDINGS = Path(__file__).parents[4].parent / "shared" / "reference" / "pulumi" / "recordings"
needs_recordings = pytest.mark.skipif(not RECORDINGS.exists(), reason=f"{RECORDINGS} is absent")
OURS = {"detailed_diff": "detailedDiff", "diff_kind": "diffKind", "input_diff": "inputDiff"}


def camel(name: str) -> str:
    return OURS.get(name) or re.sub(r"_([a-z])", lambda m: m[1].upper(), name)


def as_sent(event: dict[str, Any]) -> dict[str, Any]:
    """A recorded event, in the names of the wire; properties keep theirs."""

    def renamed(value: Any, key: str = "") -> Any:
        if key in ("inputs", "outputs", "config"):
            return value
        if isinstance(value, dict) and key == "detailed_diff":
            return {path: renamed(diff) for path, diff in value.items()}
        if isinstance(value, dict):
            return {camel(k): renamed(v, k) for k, v in value.items()}
        return value

    return dict(renamed(event))


def printed(events: list[dict[str, Any]], project: str, mode: UpdateMode = UpdateMode.UP) -> list[str]:
    console = Console()
    display = DiffDisplay(console, SystemClock(), mode, project, "dev", showing=Showing())
    display.start()
    for event in events:
        display.emit(as_sent(event))
    return re.sub(r"Duration: \d+s", "Duration: Ns", console.stdout).rstrip("\n").split("\n")


@needs_recordings
@pytest.mark.parametrize(
    ("cloud", "step"),
    [
        ("docker", "up-memory-in-place"),
        ("do", "up-vpc-description"),
        ("do", "up-volume-resize"),
        ("do", "up-key-rename"),
        ("do", "up-record-ttl"),
        ("do", "up-project-description"),
    ],
)
def test_text_is_the_recorded_one(cloud: str, step: str) -> None:
    steps = {s["step"]: s["stdout"] for s in json.loads((RECORDINGS / f"{cloud}-steps.json").read_text())}
    events = json.loads((RECORDINGS / f"{cloud}-events.json").read_text())[step]
    recorded = re.sub(r"Duration: \d+s", "Duration: Ns", "\n".join(steps[step])).rstrip("\n").split("\n")
    assert printed(events, f"g2{cloud}") == recorded
