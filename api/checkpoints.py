"""Reads stacks' checkpoints where they are stored, without Pulumi. Understands nothing of resources."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from engine.deploy.backend.blobs import BackendError
from engine.deploy.backend.open import open_backend
from engine.deploy.backend.stacks import Backend
from engine.model.errors import Unavailable
from engine.model.stack import PROJECT

_log = structlog.get_logger("api")

HIDDEN = "[secret]"
_SPECIAL_KEY = "4dabf18193072939515e22adb298388d"  # marks special values in Pulumi's JSON
_SECRET_KIND = "1b47061264138c4ac30d75fd1eb44270"  # resource.SecretSig; assets and archives have other kinds


class Checkpoints:
    """The checkpoints of one installation's stacks, on any backend its workers can use.

    Args:
        environment: what the clients of S3 and PostgreSQL read.
    """

    def __init__(self, backend_url: str, environment: Mapping[str, str]) -> None:
        self._url = backend_url
        self._environment = environment
        self._backend: Backend | None = None

    def resources(self, stack: str) -> list[dict[str, Any]] | None:
        """See `StackStates.resources`.

        Raises:
            Unavailable: the backend does not answer.
        """
        text = self._read(stack)
        if text is None:
            return None
        latest = (json.loads(text).get("checkpoint") or {}).get("latest") or {}
        return list(latest.get("resources") or [])

    def _read(self, stack: str) -> bytes | None:
        key = f"stacks/{PROJECT}/{stack}.json"
        try:
            self._backend = self._backend or open_backend(self._url, Path.cwd(), self._environment)
            if blob := self._backend.blobs.get(key):
                return blob.data
            packed = self._backend.blobs.get(f"{key}.gz")
        except BackendError as err:
            _log.warning("the state backend does not answer", error=str(err))
            raise Unavailable("the backend of the stacks does not answer; try again in a few seconds") from err
        return gzip.decompress(packed.data) if packed else None


def hide_secrets(value: Any) -> Any:
    """The value without what Pulumi marks as secret, at any depth."""
    if isinstance(value, dict):
        return (
            HIDDEN
            if value.get(_SPECIAL_KEY) == _SECRET_KIND
            else {key: hide_secrets(item) for key, item in value.items()}
        )
    return [hide_secrets(item) for item in value] if isinstance(value, list) else value
