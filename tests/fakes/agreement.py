"""What two engines must agree on after the same command line: normalises both deeds and lists the differences.

Left to each engine: times, durations, versions of itself, random ids, ciphertexts, paths, order between independents.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.fakes.twins import Deed

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_KNOWN_UUIDS = ("04da6b54-80e4-46f7-96ec-b56ff0331ba9",)
_OWN = {
    re.compile(r"Duration: \S+"): "Duration: T",
    re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z"): "TIME",
    re.compile(r"v1:[\w+/=]{16}:[\w+/=]+"): "CIPHERTEXT",
    re.compile(r"\b[0-9a-f]{64}\b"): "HASH",
    re.compile(r"(?<=\"version\": )\"v3[\d.]+\""): "VERSION",
    re.compile(r"\b(now|\d+ (second|minute)s? ago)\b"): "AGO",
}
_TIMES = ("created", "modified", "time", "startTime", "endTime", "sequence", "timestamp", "durationSeconds")
_POSITIONS = ("sourcePosition", "stackTrace")  # see test_positions.py
_DELETES = ("delete", "delete-replaced")
_STEPS = ("resourcePreEvent", "resOutputsEvent", "resOpFailedEvent")

Difference = tuple[str, Any, Any]
"""Where, what the official engine has, what the embedded one has."""


@dataclass(frozen=True)
class Reading:
    """One side's view: its folder's path and how its secrets open."""

    root: Path
    decrypt: Callable[[str], str]

    def of(self, deed: Deed) -> dict[str, Any]:
        """The comparable part of a deed."""
        events = self._plain(deed.events)
        return {
            "code": deed.code,
            "steps": steps(events),
            "diagnostics": sorted(diagnostics(events, deed.code), key=lambda d: json.dumps(d, sort_keys=True)),
            "summary": [e["summaryEvent"] for e in events if "summaryEvent" in e],
            "prelude": [e["preludeEvent"] for e in events if "preludeEvent" in e],
            "policy": sorted((e for e in events if _is_other(e)), key=str),
            "resources": self._resources(deed),
            "deployment": self._deployment(deed),
            "history": self._history(deed),
            "settings": self._plain(yaml.safe_load(deed.settings)),
            "cells": self._plain(deed.cells),
            "output": self._output(deed),
        }

    def _resources(self, deed: Deed) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for resource in _latest(deed).get("resources") or []:
            key, number = f"{resource['urn']}{' (deleted)' if resource.get('delete') else ''}", 2
            while key in found:
                key, number = f"{resource['urn']} ({number})", number + 1
            found[key] = _without_order(self._plain(resource))
        return found

    def _deployment(self, deed: Deed) -> Any:
        rest = {k: v for k, v in _latest(deed).items() if k not in ("manifest", "resources")}
        envelope = {k: v for k, v in (deed.checkpoint or {}).items() if k != "checkpoint"}
        if "pending_operations" in rest:
            rest["pending_operations"] = [
                {**operation, "resource": _without_order(operation["resource"])}
                for operation in rest["pending_operations"]
            ]
        return self._plain({**rest, "manifest": sorted(_latest(deed).get("manifest", {})), "envelope": envelope})

    def _history(self, deed: Deed) -> Any:
        history = dict(deed.history or {})
        return self._plain(_without_interpreter(history))

    def _output(self, deed: Deed) -> Any:
        if deed.events:
            return digest(self._text(deed.stdout), with_messages=not deed.code)
        if deed.stdout[:1] in ("{", "[") and "\n" in deed.stdout.strip():
            return self._plain(_comparable(json.loads(deed.stdout)))
        return [line.rstrip() for line in self._text(f"{deed.stdout}\n{deed.stderr}").splitlines() if line.strip()]

    def _plain(self, value: Any) -> Any:
        if isinstance(value, dict):
            if "ciphertext" in value and str(value["ciphertext"]).startswith("v1:"):
                return {"secret": self._plain(json.loads(self.decrypt(value["ciphertext"])))}
            if str(value.get("secure", "")).startswith("v1:"):
                return {"secure": self.decrypt(value["secure"])}
            return {k: "T" if k in _TIMES else self._plain(v) for k, v in value.items()}
        if isinstance(value, list):
            return [self._plain(v) for v in value]
        return self._text(value) if isinstance(value, str) else value

    def _text(self, text: str) -> str:
        text = text.replace(str(self.root), "ROOT")
        for pattern, word in _OWN.items():
            text = pattern.sub(word, text)
        return _UUID.sub(lambda m: m.group() if m.group() in _KNOWN_UUIDS else "UUID", text)


def steps(events: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """URN → its events in order, each under its number, kind and operation.

    Where several copies of one URN are deleted, each has its own: they go at once, and of ten runs of the official
    engine some began with the one, some with the other.
    """
    found: dict[str, dict[str, Any]] = {}
    copies = _deleted_copies(events)
    for event in events:
        kind = next((k for k in _STEPS if k in event), None)
        if kind is not None:
            payload = {k: v for k, v in event[kind].items() if k != "steps"}
            urn, old = payload["metadata"]["urn"], payload["metadata"]["old"]
            is_copy = len(copies.get(urn, ())) > 1 and payload["metadata"]["op"] in _DELETES
            of_urn = found.setdefault(f"{urn} ({old['id']})" if is_copy else urn, {})
            of_urn[f"{len(of_urn)} {kind} {payload['metadata']['op']}"] = payload
    return found


def _deleted_copies(events: list[dict[str, Any]]) -> dict[str, set[str]]:
    """URN → the ids under it that are deleted."""
    copies: dict[str, set[str]] = {}
    for event in events:
        metadata = event.get("resourcePreEvent", {}).get("metadata", {})
        if metadata.get("op") in _DELETES:
            copies.setdefault(metadata["urn"], set()).add(metadata["old"]["id"])
    return copies


def diagnostics(events: list[dict[str, Any]], code: int) -> Iterator[Any]:
    """The messages, without their colour and number.

    A program in a folder that is turned away prints Python's traceback, line by line, where the official host runs it.
    """
    for event in events:
        message = event.get("diagnosticEvent")
        is_traceback = bool(code) and message is not None and message["severity"] == "info#err"
        if message and message["severity"] != "debug" and not is_traceback:  # debug is about the engine itself
            yield {k: v for k, v in message.items() if k not in ("color", "streamId")}


def digest(text: str, *, with_messages: bool = True) -> list[str]:
    """The end of an update's text: from the outputs on; after a failure from the counts on (events have the rest)."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    starts = [n for n, line in enumerate(lines) if line in ("Outputs:", "Resources:", "Policies:", "Diagnostics:")]
    if not starts:
        return lines[-3:]
    end = lines.index("Resources:") if "Resources:" in lines else len(lines)
    if not with_messages:
        return lines[end:]
    return [*sorted(lines[starts[0] : end]), *lines[end:]]  # of several resources' messages any may come first


def differences(official: Any, embedded: Any, where: str = "") -> Iterator[Difference]:
    """Every leaf that differs."""
    if isinstance(official, dict) and isinstance(embedded, dict):
        for key in sorted(official.keys() | embedded.keys(), key=str):
            yield from differences(official.get(key, "(absent)"), embedded.get(key, "(absent)"), f"{where}/{key}")
    elif isinstance(official, list) and isinstance(embedded, list) and len(official) == len(embedded):
        for n, (one, other) in enumerate(zip(official, embedded, strict=True)):
            yield from differences(one, other, f"{where}[{n}]")
    elif official != embedded:
        yield where, official, embedded


def _without_order(resource: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint entry with its sets sorted, and without properties that depend on nothing."""
    needed = {k: sorted(v) for k, v in resource.get("propertyDependencies", {}).items() if v}
    rest = {k: v for k, v in resource.items() if k not in ("propertyDependencies", *_POSITIONS)}
    return {
        **rest,
        **({"propertyDependencies": needed} if needed else {}),
        **({"dependencies": sorted(rest["dependencies"])} if "dependencies" in rest else {}),
    }


def _without_interpreter(update: dict[str, Any]) -> dict[str, Any]:
    """An entry of the history: the official host names the first `python3` of PATH, the embedded engine its own."""
    if "environment" not in update:
        return update
    return {**update, "environment": {k: v for k, v in update["environment"].items() if k != "runtime.executable"}}


def _comparable(document: Any) -> Any:
    """A printed document: `stack export` has entries of a checkpoint, `stack history` entries of the history."""
    if isinstance(document, list):
        return [_without_interpreter(item) if isinstance(item, dict) else item for item in document]
    if isinstance(document, dict) and isinstance(document.get("deployment"), dict):
        deployment = document["deployment"]
        resources = [_without_order(resource) for resource in deployment.get("resources") or []]
        return {**document, "deployment": {**deployment, "resources": resources}}
    return document


def _latest(deed: Deed) -> dict[str, Any]:
    latest: dict[str, Any] = (deed.checkpoint or {}).get("checkpoint", {}).get("latest") or {}
    return latest


def _is_other(event: dict[str, Any]) -> bool:
    known = (*_STEPS, "diagnosticEvent", "summaryEvent", "preludeEvent", "cancelEvent", "sequence", "timestamp")
    return any(k not in known for k in event)
