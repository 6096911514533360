"""The inference paths: which there are, how they are called, and where a worker serves them. Serves none itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

_POST = ("POST",)
METHODS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "chat/completions": _POST,
        "completions": _POST,
        "embeddings": _POST,
        "rerank": _POST,
        "score": _POST,
        "responses": _POST,
        "audio/transcriptions": _POST,
        "audio/translations": _POST,
        "tokenize": _POST,
        "detokenize": _POST,
        "models": ("GET",),
    }
)
"""Path below the deployment → its methods. Whether a worker has it is the worker's to say."""

AT_THE_ROOT = frozenset(("tokenize", "detokenize"))
"""Model servers have these beside `/v1`, not in it."""

QUIET = frozenset(("models", "tokenize", "detokenize"))
"""Calls that say nothing about how quickly the model answers."""

_RESPONSE = "responses/"
_PATH = re.compile(
    r"/api/v1/public(?:/orgs/([^/]+))?/deployments/([^/]+)/"
    rf"({'|'.join(sorted(METHODS, key=len, reverse=True))}|responses/[A-Za-z0-9._:-]+(?:/cancel)?)"
)


@dataclass(frozen=True, slots=True)
class Call:
    """What an inference path asks for.

    Attributes:
        name: the path below the deployment, for example `chat/completions`.
    """

    deployment_id: str
    name: str
    org_id: str | None = None

    @property
    def methods(self) -> tuple[str, ...]:
        known = METHODS.get(self.name)
        if known is not None:
            return known
        return _POST if self.name.endswith("/cancel") else ("GET", "DELETE")

    @property
    def worker_path(self) -> str:
        return f"/{self.name}" if self.name in AT_THE_ROOT else f"/v1/{self.name}"

    @property
    def generates(self) -> bool:
        """Whether its answer is the model's work."""
        return self.name not in QUIET and not self.name.startswith(_RESPONSE)


def parse_path(path: str) -> Call | None:
    """The inference call a path names; None when it names something else."""
    match = _PATH.fullmatch(path)
    return Call(match[2], match[3], match[1]) if match else None
