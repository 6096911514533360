"""Reduces engine events, recorded or ours, to what must agree: per resource the operations with their details.

Left out: times, ids, order between resources, provider property values of cloud resources, plugin version warnings.
"""

from __future__ import annotations

import re
from typing import Any

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_UNKNOWN = "04da6b54-80e4-46f7-96ec-b56ff0331ba9"
_KINDS = {
    "resourcePreEvent": "pre",
    "resource_pre_event": "pre",
    "resOutputsEvent": "outputs",
    "res_outputs_event": "outputs",
    "resOpFailedEvent": "failed",
    "res_op_failed_event": "failed",
}


def reduce_events(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The comparable part of one update's events, in either spelling of their names."""
    resources: dict[str, list[Any]] = {}
    rest: dict[str, Any] = {"diagnostics": []}
    for event in events:
        kind = next((k for k in _KINDS if k in event), None)
        if kind is not None:
            payload = event[kind]
            resources.setdefault(payload["metadata"]["urn"], []).append(_step(_KINDS[kind], payload))
        elif message := event.get("diagnosticEvent") or event.get("diagnostic_event"):
            if message["severity"] == "error":
                first_line = message["message"].split("\n")[0]
                rest["diagnostics"].append([message["severity"], message.get("urn", ""), first_line])
        elif summary := event.get("summaryEvent") or event.get("summary_event"):
            rest["changes"] = summary.get("resourceChanges", summary.get("resource_changes"))
        elif prelude := event.get("preludeEvent") or event.get("prelude_event"):
            rest["config"] = prelude["config"]
    rest["diagnostics"].sort()
    rest["resources"] = dict(sorted(resources.items()))
    rest["last"] = sorted(k for k in events[-1] if k not in ("sequence", "timestamp"))[0].replace("_e", "E")
    return rest


def _step(kind: str, payload: dict[str, Any]) -> dict[str, Any]:
    metadata = payload["metadata"]
    detailed = metadata.get("detailedDiff", metadata.get("detailed_diff")) or {}
    step = {
        "kind": kind,
        "op": metadata["op"],
        "planning": bool(payload.get("planning")),
        "logical": bool(metadata.get("logical")),
        "keys": metadata.get("keys") or [],
        "diffs": metadata.get("diffs") or [],
        "detailed": {
            path: [d.get("diffKind", d.get("diff_kind")), d.get("inputDiff", d.get("input_diff"))]
            for path, d in sorted(detailed.items())
        },
        "provider": _without_ids(metadata["provider"]),
    }
    for side in ("old", "new"):
        state = metadata.get(side)
        step[side] = None if state is None else _state(state)
    return step


def _state(state: dict[str, Any]) -> dict[str, Any]:
    kept = {k: v for k, v in state.items() if k not in ("inputs", "outputs", "id", "provider")}
    kept["has_id"] = bool(state["id"])
    if "index/droplet" not in state["type"]:
        kept["inputs"], kept["outputs"] = state["inputs"], _without_addresses(state["outputs"])
    return kept


def _without_ids(text: str) -> str:
    return _UUID.sub(lambda m: m.group() if m.group() == _UNKNOWN else "ID", text)


def _without_addresses(outputs: dict[str, Any]) -> dict[str, Any]:
    """Outputs with values that come from the cloud replaced by their shape."""

    def shape(value: Any) -> Any:
        if isinstance(value, list):
            return [shape(v) for v in value]
        return "ADDRESS" if isinstance(value, str) and ("127.0.0.1" in value or value.startswith("10.")) else value

    return {k: shape(v) for k, v in outputs.items() if k != "apiEndpoint"} | (
        {"apiEndpoint": outputs["apiEndpoint"]} if "apiEndpoint" in outputs else {}
    )
