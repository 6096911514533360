"""Finds which resources have to go before one that is deleted first and then made anew.

It asks providers and decides nothing else. Source: pulumi `step_generator.go`, calculateDependentReplacements.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from engine.deploy.diff import apply_replace_on_changes
from engine.deploy.graph import DependencyGraph
from engine.deploy.property import UNKNOWN, PropertyMap
from engine.deploy.registry import ProviderRegistry, ask_diff
from engine.deploy.resource import ResourceState
from engine.deploy.step_generator import Dependent, needs_replacement
from engine.deploy.urn import is_provider_type, parse_reference


async def dependents_to_replace(
    registry: ProviderRegistry, olds: Sequence[ResourceState], root: ResourceState, registered: Collection[str]
) -> list[Dependent]:
    """Dependents of `root` that a change of its outputs would replace, in dependency order.

    What the program has registered already cannot depend on `root` any more.
    """
    condemned = {root.urn}
    found: list[Dependent] = []
    for state in DependencyGraph(olds).depending_on(root, registered):
        dependent = await _must_go(registry, state, condemned)
        if dependent is not None:
            found.append(dependent)
            condemned.add(state.urn)
    return found


async def _must_go(registry: ProviderRegistry, state: ResourceState, condemned: set[str]) -> Dependent | None:
    if not state.custom or state.external:
        return None
    if state.provider and parse_reference(state.provider)[0] in condemned:
        return Dependent(state)
    if state.deleted_with and state.deleted_with in condemned:
        return Dependent(state)
    if not condemned.isdisjoint(state.replace_with):
        return Dependent(state)
    inputs = _inputs_then(state, condemned)
    if inputs is None or is_provider_type(state.type):
        return None
    provider = await registry.get(state.provider)
    diff = await ask_diff(provider, state.urn, state, inputs, state.ignore_changes)
    diff = apply_replace_on_changes(diff, state.replace_on_changes, False)
    if not needs_replacement(state.with_(pending_replacement=False), diff):
        return None
    return Dependent(state, tuple(diff.replace_keys))


def _inputs_then(state: ResourceState, condemned: Collection[str]) -> PropertyMap | None:
    """The inputs with unknowns where they come from something condemned; None if none does."""
    touched = {key for key, urns in state.property_dependencies.items() if any(u in condemned for u in urns)}
    if not touched & state.inputs.keys():
        return None
    return {key: UNKNOWN if key in touched else value for key, value in state.inputs.items()}
