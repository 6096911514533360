"""What a resource has from its parent: deletedWith, protect, retainOnDelete, and the provider of their package.

The SDKs do some of it themselves; what a program says always stands above it. Source: pulumi `source_eval.go`,
inheritFromParent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from engine.deploy.urn import is_provider_type, package_of, urn_type


@dataclass(frozen=True)
class _Options:
    deleted_with: str
    protect: bool | None
    retain_on_delete: bool | None
    provider: str


_NONE = _Options("", None, None, "")


class Inheritance:
    """The options of one update's registered resources, for their children."""

    def __init__(self) -> None:
        self._of: dict[str, _Options] = {}

    def remember(self, urn: str, request: Any) -> None:
        """Keep what a registered resource hands down."""
        options = _options(request)
        if options != _NONE:
            self._of[urn] = options

    def resolved(self, request: Any) -> Any:
        """The registration with what it has from its parent."""
        inherited = self._of.get(request.parent)
        if inherited is None:
            return request
        own, resolved = _options(request), type(request)()
        resolved.CopyFrom(request)
        resolved.deletedWith = own.deleted_with or inherited.deleted_with
        if own.protect is None and inherited.protect is not None:
            resolved.protect = inherited.protect
        if own.retain_on_delete is None and inherited.retain_on_delete is not None:
            resolved.retainOnDelete = inherited.retain_on_delete
        is_resource = request.custom and not is_provider_type(request.type)
        if is_resource and not own.provider and _package(inherited.provider) == package_of(request.type):
            resolved.provider = inherited.provider
        return resolved


def _options(request: Any) -> _Options:
    return _Options(
        deleted_with=request.deletedWith,
        protect=request.protect if request.HasField("protect") else None,
        retain_on_delete=request.retainOnDelete if request.HasField("retainOnDelete") else None,
        provider=request.provider,
    )


def _package(reference: str) -> str:
    return package_of(urn_type(reference.rpartition("::")[0])) if reference else ""
