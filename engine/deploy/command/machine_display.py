"""`--json`: the digest of a preview as one document, or the events of an update as one JSON line each.

Source: pulumi `pkg/backend/display/{json,events}.go`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from engine.deploy.command.console import Console
from engine.deploy.command.display import Showing
from engine.deploy.events import revealed
from engine.deploy.property import SECRET_SIGNATURE, SIGNATURE
from engine.deploy.urn import ROOT_STACK_TYPE

_NANOSECONDS = 1_000_000_000
_STATE_MEMBERS = (
    *("urn", "custom", "delete", "id", "type", "inputs", "outputs"),
    *("parent", "protect", "initErrors", "provider"),
)
_UNSHOWN = frozenset({"same", "refresh"})


class EventLines:
    """Every engine event as a line, as it happens."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def start(self) -> None:
        """Nothing comes before the first event."""

    def emit(self, event: Mapping[str, Any]) -> None:
        """Print an event."""
        self._console.out(json.dumps(event, separators=(",", ":"), ensure_ascii=False))

    def interrupted(self, text: str) -> None:
        """Say what ^C does, outside the lines."""
        self._console.error(text)

    def close(self) -> None:
        """Nothing comes after the last event."""


class PreviewDigest:
    """What a preview found, printed when it has ended: also after a failure it is one whole document."""

    def __init__(self, console: Console, showing: Showing) -> None:
        self._console = console
        self._showing = showing
        self._digest: dict[str, Any] = {}
        self._steps: list[dict[str, Any]] = []
        self._diagnostics: list[dict[str, Any]] = []

    def start(self) -> None:
        """Nothing may stand outside the document."""

    def emit(self, event: Mapping[str, Any]) -> None:
        """Take what belongs into the digest."""
        if self._showing.secrets:
            event = revealed(event)
        if prelude := event.get("preludeEvent"):
            self._digest["config"] = prelude["config"]
        elif metadata := (event.get("resourcePreEvent") or {}).get("metadata"):
            if metadata["op"] not in _UNSHOWN or metadata["type"] == ROOT_STACK_TYPE or self._showing.sames:
                self._steps.append(self._step(metadata))
        elif diagnostic := event.get("diagnosticEvent"):
            if diagnostic["severity"] != "debug" and not diagnostic.get("ephemeral"):
                self._diagnostics.append(_diagnostic(diagnostic))
        elif summary := event.get("summaryEvent"):
            self._digest["duration"] = int(summary["durationSeconds"]) * _NANOSECONDS
            self._digest["changeSummary"] = summary["resourceChanges"]

    def interrupted(self, text: str) -> None:
        """Say what ^C does, outside the document."""
        self._console.error(text)

    def close(self) -> None:
        """Print the document; members without content are left out, as the official engine does."""
        order = {
            "config": self._digest.get("config"),
            "steps": self._steps,
            "diagnostics": self._diagnostics,
            "duration": self._digest.get("duration"),
            "changeSummary": self._digest.get("changeSummary"),
        }
        self._console.out(json.dumps({k: v for k, v in order.items() if v}, indent=4, ensure_ascii=False))

    def _step(self, metadata: Mapping[str, Any]) -> dict[str, Any]:
        detailed = {
            path: {"kind": diff["diffKind"], "inputDiff": diff["inputDiff"]}
            for path, diff in (metadata.get("detailedDiff") or {}).items()
        }
        outputs = self._showing.outputs or metadata["type"] != ROOT_STACK_TYPE
        step = {
            "op": metadata["op"],
            "urn": metadata["urn"],
            "provider": metadata.get("provider"),
            "oldState": _state(metadata["old"], outputs) if metadata.get("old") else None,
            "newState": _state(metadata["new"], outputs) if metadata.get("new") else None,
            "diffReasons": metadata.get("diffs"),
            "replaceReasons": metadata.get("keys"),
        }
        return {**{k: v for k, v in step.items() if v}, "detailedDiff": detailed or None}


def _state(state: Mapping[str, Any], outputs: bool) -> dict[str, Any]:
    order = (
        "urn",
        "custom",
        "delete",
        "id",
        "type",
        "inputs",
        "outputs",
        "parent",
        "protect",
        "initErrors",
        "provider",
    )
    shown: dict[str, Any] = {}
    for name in order:
        value = state.get(name)
        if name == "custom":
            shown[name] = bool(value)
        elif name in ("inputs", "outputs"):
            if value and outputs:
                shown[name] = _hidden(value)
        elif value:
            shown[name] = value
    return shown


def _hidden(value: Any) -> Any:
    """Secrets as the text `[secret]`."""
    if isinstance(value, Mapping):
        if value.get(SIGNATURE) == SECRET_SIGNATURE:
            return "[secret]"
        return {k: _hidden(v) for k, v in value.items()}
    return [_hidden(v) for v in value] if isinstance(value, list) else value


def _diagnostic(event: Mapping[str, Any]) -> dict[str, Any]:
    shown = {"urn": event.get("urn"), "message": event.get("prefix", "") + event["message"]}
    return {**{k: v for k, v in shown.items() if v}, "severity": event["severity"]}
