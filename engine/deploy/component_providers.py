"""The providers that components hand to their children, by URN of the component.

Children of remote components are registered by other processes, which may not know them. Source: pulumi
`source_eval.go`, resolveProvider and componentProviders.
"""

from __future__ import annotations

from typing import Any

from engine.deploy.urn import package_of


class ComponentProviders:
    """What one update's components were registered with: package → reference of a provider."""

    def __init__(self) -> None:
        self._of: dict[str, dict[str, str]] = {}

    def remember(self, urn: str, request: Any) -> None:
        """Keep a registered component's providers for its children."""
        if not request.custom and request.providers:
            self._of[urn] = dict(request.providers)

    def resolved(self, request: Any) -> Any:
        """The registration with what it inherits: its provider, and a component's map of them."""
        inherited = self._of.get(request.parent, {})
        package = package_of(request.type)
        if not request.provider and (request.custom or request.remote):
            given = request.providers.get(package) or inherited.get(package, "")
            if given:
                request = _copy(request)
                request.provider = given
        missing = {name: given for name, given in inherited.items() if name not in request.providers}
        if missing and not request.custom:
            request = _copy(request)
            request.providers.update(missing)
        return request


def _copy(request: Any) -> Any:
    copy = type(request)()
    copy.CopyFrom(request)
    return copy
