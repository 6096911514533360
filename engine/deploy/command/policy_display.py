"""The "Policies:" section of an update's text: packs, and under each its violations.

Reads engine events only. Source: pulumi `pkg/backend/display/progress.go`, printPolicies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from engine.deploy.command.property_text import PropertyText

_MARKS = {"mandatory": "❌", "advisory": "⚠️ "}


class PolicyDisplay:
    """Collects what policy packs said."""

    def __init__(self, *, remediations: bool = False) -> None:
        self._remediations = remediations
        self._found: list[tuple[str, Mapping[str, Any]]] = []

    def add(self, event: Mapping[str, Any]) -> None:
        """Take an engine event; those that are nobody's policy are ignored."""
        if violation := event.get("policyEvent"):
            self._found.append((str(violation["enforcementLevel"]), violation))
        elif remediation := event.get("policyRemediationEvent"):
            self._found.append(("remediate", remediation))

    @property
    def forbids(self) -> bool:
        """Whether a mandatory policy is violated."""
        return any(level == "mandatory" for level, _ in self._found)

    def lines(self, packs: Mapping[str, str]) -> Iterator[str]:
        """The section; nothing where no pack ran.

        Args:
            packs: pack → version, as the summary event has them.
        """
        if not packs:
            return
        yield "Policies:"
        for name, version in sorted(packs.items()):
            yield from self._pack(name, version)
        yield ""

    def _pack(self, key: str, version: str) -> Iterator[str]:
        name, _, path = key.partition("|local|")
        found = [(level, event) for level, event in self._found if event["policyPackName"] == name]
        levels = {level for level, _ in found}
        worst = next((mark for level, mark in _MARKS.items() if level in levels), "✅")
        yield f"    {worst} {name}@v{version}{path and f' (local: {path})'}"
        if not self._remediations:
            yield from _remediated([event for level, event in found if level == "remediate"])
            found = [(level, event) for level, event in found if level != "remediate"]
        for level, event in sorted(found, key=lambda f: (f[0] != "mandatory", f[1]["policyName"])):
            type_, _, resource = event["resourceUrn"].split("::", 2)[2].partition("::")
            yield f"        - [{level}]  {event['policyName']}  ({type_.rpartition('$')[2]}: {resource})"
            if level == "remediate":
                before, after = event.get("before") or {}, event.get("after") or {}
                yield from PropertyText().changed_members(before, after, 2)
            for line in str(event.get("message", "")).strip().split("\n") if level != "remediate" else ():
                yield f"          {line}"


def _remediated(events: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """One line for each policy that changed something, with how many resources."""
    counts = Counter(str(event["policyName"]) for event in events)
    for name, count in sorted(counts.items()):
        yield f"        - [remediate]  {name}  ({count} resource{'s' if count > 1 else ''})"
