"""The engine's view of a stack: resources in dependency order, and effects that never ended.

In memory and decrypted; its stored JSON is the checkpoint (`checkpoint.py`). Source: pulumi
`pkg/resource/deploy/snapshot.go`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.deploy.resource import PendingOperation, ResourceState


class IntegrityError(Exception):
    """A snapshot breaks a rule every snapshot keeps; the message names the resource and the rule."""


@dataclass(frozen=True)
class Snapshot:
    """Resources of one stack. Parents, providers and dependencies come before whoever names them.

    Attributes:
        metadata: the deployment's `metadata` object, kept for the next reader.
    """

    resources: Sequence[ResourceState] = ()
    pending_operations: Sequence[PendingOperation] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def verify_integrity(self) -> None:
        """Check every rule: unique live URNs, ids where needed, known parents, providers and dependencies, in order.

        Raises:
            IntegrityError: the first broken rule.
        """
        seen: dict[str, ResourceState] = {}
        refs: set[str] = set()
        for state in self.resources:
            self._verify_one(state, seen, refs)
            if not state.delete:
                if state.urn in seen and not seen[state.urn].delete:
                    raise IntegrityError(f"duplicate resource {state.urn} (not marked for deletion)")
                seen[state.urn] = state
            else:
                seen.setdefault(state.urn, state)
            if state.type.startswith("pulumi:providers:"):
                refs.add(f"{state.urn}::{state.id}")

    @staticmethod
    def _verify_one(state: ResourceState, seen: Mapping[str, ResourceState], refs: set[str]) -> None:
        if not state.urn.startswith("urn:pulumi:"):
            raise IntegrityError(f"malformed URN {state.urn!r}")
        if state.custom and not state.id:
            raise IntegrityError(f"custom resource {state.urn} has no id")
        if not state.custom and state.id and not state.external:
            raise IntegrityError(f"component {state.urn} has an id")
        if state.parent and state.parent not in seen:
            raise IntegrityError(f"resource {state.urn} refers to unknown parent {state.parent}")
        if state.provider and state.provider not in refs:
            raise IntegrityError(f"resource {state.urn} refers to unknown provider {state.provider}")
        for dependency in state.dependencies:
            if dependency not in seen:
                raise IntegrityError(f"resource {state.urn} depends on unknown {dependency}")
        for key, urns in state.property_dependencies.items():
            for urn in urns:
                if urn not in seen:
                    raise IntegrityError(f"property {key} of {state.urn} depends on unknown {urn}")
        if state.deleted_with and state.deleted_with not in seen:
            raise IntegrityError(f"resource {state.urn} is deleted with unknown {state.deleted_with}")
