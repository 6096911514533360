"""Engine events in the JSON shape of `apitype.EngineEvent`, as `--event-log` carries them.

Where they go is the sink's business. Source: pulumi `sdk/go/common/apitype/events.go`, `pkg/engine/events.go`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import IntEnum
from typing import Any

from engine.deploy.property import (
    ARCHIVE_SIGNATURE,
    ASSET_SIGNATURE,
    RESOURCE_SIGNATURE,
    SECRET_SIGNATURE,
    SIGNATURE,
    UNKNOWN,
    UNKNOWN_VALUE,
    Archive,
    Asset,
    Output,
    PropertyMap,
    PropertyValue,
    ResourceReference,
    Secret,
)
from engine.deploy.resource import ResourceState
from engine.deploy.step import Op, Step
from engine.model.clock import Clock

_WITHOUT_OLD = frozenset({Op.CREATE, Op.IMPORT, Op.IMPORT_REPLACEMENT})
_ELIDED = "<contents elided>"
_PREFIXES = {"error": "error: ", "warning": "warning: ", "debug": "debug: "}


class HiddenSecret(dict[str, Any]):
    """What events show of a secret; whoever may see it (`--show-secrets`) asks for its `value`. JSON never has that."""

    def __init__(self, value: PropertyValue) -> None:
        super().__init__({SIGNATURE: SECRET_SIGNATURE, "ciphertext": "[secret]"})
        self.value = value


def revealed(value: Any) -> Any:
    """An event, or a part of one, with its secrets in the clear."""
    if isinstance(value, HiddenSecret):
        return revealed(shown(value.value))
    if isinstance(value, dict):
        return {k: revealed(v) for k, v in value.items()}
    return [revealed(v) for v in value] if isinstance(value, list) else value


class FailedStatus(IntEnum):
    """What is known of a resource whose step failed; PARTIAL: it exists and is not usable."""

    NOTHING = 0
    PARTIAL = 1
    UNKNOWN = 2


class EngineEvents:
    """Numbers, dates and emits the events of one update; keeps the diagnostics it showed."""

    def __init__(self, sink: Any, clock: Clock, *, planning: bool) -> None:
        self._sink = sink
        self._clock = clock
        self._planning = planning
        self._sequence = 0
        self._started = clock.monotonic()
        self.diagnostics: list[str] = []
        self.maybe_corrupt = False
        self.policy_packs: Mapping[str, str] = {}  # pack → version

    def prelude(self, config: Mapping[str, str], secret_keys: frozenset[str]) -> None:
        shown = {key: "[secret]" if key in secret_keys else value for key, value in sorted(config.items())}
        self._emit("preludeEvent", {"config": shown})

    def before(self, step: Step) -> None:
        self._emit("resourcePreEvent", self._with_planning({"metadata": step_metadata(step)}))

    def outputs(self, step: Step) -> None:
        metadata = step_metadata(step)
        if step.op is Op.IMPORT and step.new is not None:  # what was taken over is where it starts from
            metadata["old"] = state_metadata(step.new)
        self._emit("resOutputsEvent", self._with_planning({"metadata": metadata}))

    def failed(self, step: Step, *, status: FailedStatus, steps_done: int) -> None:
        """A step failed."""
        self.maybe_corrupt |= status is FailedStatus.UNKNOWN
        self._emit("resOpFailedEvent", {"metadata": step_metadata(step), "status": status.value, "steps": steps_done})

    def diagnostic(
        self, severity: str, message: str, *, urn: str = "", stream_id: int = 0, ephemeral: bool = False
    ) -> None:
        """A message for people; errors are also kept for the result."""
        event: dict[str, Any] = {"message": f"{message}\n", "color": "never", "severity": severity}
        if prefix := _PREFIXES.get(severity.removesuffix("#err")):
            event["prefix"] = prefix
        if urn:
            event["urn"] = urn
        if stream_id:
            event["streamId"] = stream_id
        if ephemeral:
            event["ephemeral"] = True
        if severity == "error":
            self.diagnostics.append(message.strip())
        self._emit("diagnosticEvent", event)

    def policy_violation(self, urn: str, policy: Mapping[str, str], message: str, level: str, severity: str) -> None:
        """A policy is violated; `policy` has its names as `apitype.PolicyEvent` has them."""
        event = {"resourceUrn": urn, "message": f"{message}\n", "color": "never", **policy, "enforcementLevel": level}
        self._emit("policyEvent", {**event, "severity": severity} if severity else event)

    def policy_remediation(self, urn: str, policy: Mapping[str, str], before: PropertyMap, after: PropertyMap) -> None:
        """A policy changed a resource's inputs."""
        event = {"resourceUrn": urn, "color": "raw", **policy, "before": shown(before), "after": shown(after)}
        self._emit("policyRemediationEvent", event)

    def policy_load(self) -> None:
        """A policy pack is about to be started."""
        self._emit("policyLoadEvent", {})

    def policy_summary(self, what: str, summary: Mapping[str, Any]) -> None:
        """Which policies of a pack passed and which failed; `what`: Analyze, Remediate or AnalyzeStack."""
        self._emit(f"policy{what}SummaryEvent", {key: value for key, value in summary.items() if value})

    def summary(self, changes: Mapping[str, int], result: str) -> None:
        """`result`: succeeded, failed or canceled."""
        seconds = math.ceil(self._clock.monotonic() - self._started)
        event = {"maybeCorrupt": self.maybe_corrupt, "durationSeconds": seconds, "resourceChanges": dict(changes)}
        event |= {"PolicyPacks": dict(self.policy_packs), "isPreview": self._planning, "result": result}
        self._emit("summaryEvent", event)

    def cancel(self) -> None:
        """The last event of every update."""
        self._emit("cancelEvent", {})

    def _with_planning(self, event: dict[str, Any]) -> dict[str, Any]:
        if self._planning:
            event["planning"] = True
        return event

    def _emit(self, kind: str, payload: dict[str, Any]) -> None:
        timestamp = int(self._clock.now().timestamp())
        self._sink.emit({"sequence": self._sequence, "timestamp": timestamp, kind: payload})
        self._sequence += 1


def step_metadata(step: Step) -> dict[str, Any]:
    """`apitype.StepEventMetadata` of a step."""
    state = step.state
    metadata: dict[str, Any] = {
        "op": step.name,
        "urn": step.urn,
        "type": state.type,
        "old": state_metadata(step.old) if step.old and step.op not in _WITHOUT_OLD else None,
        "new": state_metadata(step.new) if step.new and step.op not in (Op.DELETE, Op.DELETE_REPLACED) else None,
        "detailedDiff": {
            path: {"diffKind": d.kind.value, "inputDiff": d.input_diff} for path, d in step.detailed_diff.items()
        }
        or None,
        "provider": state.provider,
    }
    if step.keys:
        metadata["keys"] = list(step.keys)
    if step.diffs:
        metadata["diffs"] = list(step.diffs)
    if step.logical:
        metadata["logical"] = True
    return metadata


def state_metadata(state: ResourceState) -> dict[str, Any]:
    """`apitype.StepEventStateMetadata` of a state; secrets hidden."""
    metadata: dict[str, Any] = {
        "type": state.type,
        "urn": state.urn,
        "id": state.id,
        "parent": state.parent,
        "provider": state.provider,
        "inputs": shown(state.inputs, texts=False),
        "outputs": shown(state.outputs, texts=False),
    }
    for name, value in (
        ("custom", state.custom),
        ("delete", state.delete),
        ("protect", state.protect),
        ("external", state.external),
        ("retainOnDelete", state.retain_on_delete),
        ("initErrors", list(state.init_errors)),
        ("hideDiffs", list(state.hide_diffs)),
    ):
        if value:
            metadata[name] = value
    return metadata


def shown(value: PropertyValue, *, texts: bool = True) -> Any:
    """A property value as events show it: `[secret]` for secrets, the well-known text for unknowns.

    Args:
        texts: False leaves the text out of text assets: they are people's files, of any size.
    """
    if isinstance(value, dict):
        return {k: shown(v, texts=texts) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [shown(v, texts=texts) for v in value]
    if isinstance(value, Secret):
        return HiddenSecret(value.value)
    if isinstance(value, Output) and value.secret:
        return HiddenSecret(value.value if value.known else UNKNOWN)
    if value is UNKNOWN or (isinstance(value, Output) and not value.known):
        return UNKNOWN_VALUE
    if isinstance(value, Output):
        return shown(value.value, texts=texts)
    if isinstance(value, ResourceReference):
        id = {} if value.id is None else {"id": shown(value.id)}
        return {SIGNATURE: RESOURCE_SIGNATURE, "urn": value.urn, "packageVersion": value.package_version, **id}
    if isinstance(value, Asset):
        text = {} if texts or "text" not in value.fields else {"text": _ELIDED}
        return {SIGNATURE: ASSET_SIGNATURE, **value.fields, **text}
    if isinstance(value, Archive):
        return {SIGNATURE: ARCHIVE_SIGNATURE, **{k: shown(v, texts=texts) for k, v in value.fields.items()}}
    return value
