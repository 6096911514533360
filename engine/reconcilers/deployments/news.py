"""What subscribers are told when a deployment's phase changes. Pure; `apply.py` publishes it with the change.

What was told last decides what is news: `scaling` between two phases is none, and a phase that is told once is told
again only after another one was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from engine.model.deployment import Phase
from engine.webhooks.events import Event

_SILENT = (Phase.PROVISIONING, Phase.SCALING, Phase.INACTIVE)
_EVENTS: Mapping[Phase, Event] = {
    Phase.DEGRADED: Event.DEGRADED,
    Phase.FAILED: Event.FAILED,
    Phase.ASLEEP: Event.ASLEEP,
    Phase.TEARDOWN: Event.TEARDOWN,
}
_BACK: Mapping[str, Event] = {Phase.DEGRADED.value: Event.RECOVERED, Phase.ASLEEP.value: Event.AWAKE}


@dataclass(frozen=True)
class News:
    """One message: what happened, and its particulars as JSON."""

    event: Event
    data: Mapping[str, object]


def news(told: str, phase: Phase, *, reason: str = "") -> News | None:
    """What to tell of a deployment that is now in `phase`; None: nothing new.

    Args:
        told: the last phase that was told; "" when none was yet.
    """
    if phase in _SILENT or phase.value == told:
        return None
    event = _BACK.get(told, Event.ACTIVE) if phase is Phase.ACTIVE else _EVENTS[phase]
    return News(event, {"status": phase.value, "previous_status": told or Phase.PROVISIONING.value, "reason": reason})


def told_phase(told: str, phase: Phase) -> str:
    """The last phase that was told once this one was."""
    return told if phase in _SILENT else phase.value
