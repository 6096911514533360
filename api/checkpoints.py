"""Reads stacks' checkpoints where they are stored, without Pulumi. Understands nothing of resources."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

from engine.model.stack import PROJECT

HIDDEN = "[secret]"
_SPECIAL_KEY = "4dabf18193072939515e22adb298388d"  # marks special values in Pulumi's JSON
_SECRET_KIND = "1b47061264138c4ac30d75fd1eb44270"  # resource.SecretSig; assets and archives have other kinds


class FileCheckpoints:
    """Checkpoints of a `file://` backend: `.pulumi/stacks/<project>/<stack>.json`, or the same gzipped."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / ".pulumi" / "stacks" / PROJECT

    def resources(self, stack: str) -> list[dict[str, Any]] | None:
        """See `StackStates.resources`."""
        text = self._read(stack)
        if text is None:
            return None
        latest = (json.loads(text).get("checkpoint") or {}).get("latest") or {}
        return list(latest.get("resources") or [])

    def _read(self, stack: str) -> bytes | None:
        plain = self._folder / f"{stack}.json"
        packed = self._folder / f"{stack}.json.gz"
        if plain.exists():
            return plain.read_bytes()
        return gzip.decompress(packed.read_bytes()) if packed.exists() else None


class NoCheckpoints:
    """For backends this process cannot read: a stack is then shown by its recorded outputs alone."""

    def resources(self, stack: str) -> list[dict[str, Any]] | None:
        """See `StackStates.resources`."""
        return None


def checkpoints_at(backend_url: str) -> FileCheckpoints | NoCheckpoints:
    """The reader for a Pulumi backend URL."""
    if backend_url.startswith("file://"):
        return FileCheckpoints(Path(backend_url.removeprefix("file://")).expanduser())
    return NoCheckpoints()


def hide_secrets(value: Any) -> Any:
    """The value without what Pulumi marks as secret, at any depth."""
    if isinstance(value, dict):
        return (
            HIDDEN
            if value.get(_SPECIAL_KEY) == _SECRET_KIND
            else {key: hide_secrets(item) for key, item in value.items()}
        )
    return [hide_secrets(item) for item in value] if isinstance(value, list) else value
