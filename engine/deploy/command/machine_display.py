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
from engine.deploy.urn import ROOT_STACK_TYPE, is_default_provider

_NANOSECONDS = 1_000_000_000
_STATE_MEMBERS = (
    *("urn", "custom", "delete", "id", "type", "inputs", "outputs"),
    *("parent", "protect", "initErrors", "provider"),
)
_REPLACEMENT_OPS = frozenset(
    {
        "replace",
        "create-replacement",
        "delete-replaced",
        "read-replacement",
        "discard-replaced",
        "remove-pending-replace",
        "import-replacement",
    }
)


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
        self._last_ops: dict[str, str] = {}  # URN → what began last

    def start(self) -> None:
        """Nothing may stand outside the document."""

    def emit(self, event: Mapping[str, Any]) -> None:
        """Take what belongs into the digest."""
        if self._showing.secrets:
            event = revealed(event)
        if prelude := event.get("preludeEvent"):
            self._digest["config"] = prelude["config"]
        elif metadata := (event.get("resourcePreEvent") or {}).get("metadata"):
            if self._shows(metadata):
                self._last_ops[metadata["urn"]] = metadata["op"]
                self._steps.append(self._step(metadata))
        elif metadata := (event.get("resOutputsEvent") or {}).get("metadata"):
            self._take_result_of_refresh(metadata)
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

    def _shows(self, metadata: Mapping[str, Any]) -> bool:
        """As pulumi: `display/display.go`, shouldShow."""
        if metadata["type"] == ROOT_STACK_TYPE:
            return True
        if is_default_provider(metadata["urn"]):
            return False
        if metadata["op"] == "same":
            old, new = metadata.get("old") or {}, metadata.get("new") or {}
            return self._showing.sames or bool(old.get("protect")) != bool(new.get("protect"))
        is_half = metadata["op"] in _REPLACEMENT_OPS and not metadata.get("logical")
        return self._showing.replacement_steps or not is_half

    def _take_result_of_refresh(self, metadata: Mapping[str, Any]) -> None:
        """A refresh that found a difference is shown as that difference."""
        if self._last_ops.get(metadata["urn"]) != "refresh":
            return
        if metadata["op"] == "delete" or (metadata["op"] == "update" and metadata.get("detailedDiff")):
            for number, step in enumerate(self._steps):
                if step["urn"] == metadata["urn"]:
                    self._steps[number] = self._step(metadata)

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
