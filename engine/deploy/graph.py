"""Who depends on whom: parents, providers, dependencies and deletedWith of resource states, as a graph.

Not a scheduler (`deletes.py`). Source: pulumi `pkg/resource/graph/dependency_graph.go`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from engine.deploy.resource import ResourceState
from engine.deploy.urn import make_reference, parse_reference


def references(state: ResourceState) -> Iterator[str]:
    """URNs the state names: parent, provider, dependencies, property dependencies, deletedWith, replaceWith."""
    if state.parent:
        yield state.parent
    if state.provider:
        yield parse_reference(state.provider)[0]
    yield from state.dependencies
    for urns in state.property_dependencies.values():
        yield from urns
    if state.deleted_with:
        yield state.deleted_with
    yield from state.replace_with


def in_dependency_order(resources: Sequence[ResourceState]) -> list[ResourceState]:
    """The same resources, each after everything it names; otherwise in the given order.

    A reference by URN means the live copy where there is one, an old copy that waits for deletion otherwise; a provider
    reference means the copy with that id.
    """
    if _is_ordered(resources):
        return list(resources)
    by_urn: dict[str, list[ResourceState]] = {}
    for state in resources:
        by_urn.setdefault(state.urn, []).append(state)
    ordered: list[ResourceState] = []
    visited: set[int] = set()
    for root in resources:
        stack: list[tuple[ResourceState, bool]] = [(root, False)]
        while stack:
            state, done = stack.pop()
            if done:
                ordered.append(state)
            elif id(state) not in visited:
                visited.add(id(state))
                stack.append((state, True))
                stack.extend((target, False) for target in _targets(state, by_urn) if id(target) not in visited)
    return ordered


def _targets(state: ResourceState, by_urn: dict[str, list[ResourceState]]) -> Iterator[ResourceState]:
    provider_urn, provider_id = parse_reference(state.provider) if state.provider else ("", "")
    for urn in references(state):
        copies = by_urn.get(urn, [])
        if urn == provider_urn:
            copies = [c for c in copies if c.id == provider_id] or copies
        live = [c for c in copies if not c.delete]
        yield from (c for c in (live or copies)[:1] if c is not state)


def _is_ordered(resources: Sequence[ResourceState]) -> bool:
    seen: set[str] = set()
    provider_refs: set[str] = set()
    for state in resources:
        if any(urn not in seen for urn in references(state)):
            return False
        if state.provider and state.provider not in provider_refs:
            return False
        seen.add(state.urn)
        if state.custom:
            provider_refs.add(f"{state.urn}::{state.id}")
    return True


def without_dangling_references(resources: Sequence[ResourceState]) -> list[ResourceState]:
    """The same resources with references to absent ones dropped; a child of an absent parent moves to its grandparent.

    A refresh may find that something vanished on which others depend. Source: pulumi `journal.go`, rebuildDependencies.
    """
    present = {state.urn for state in resources}
    return [s if all(u in present for u in references(s)) else _mended(s, present) for s in resources]


def _mended(state: ResourceState, present: Collection[str]) -> ResourceState:
    return state.with_(
        parent=state.parent if state.parent in present else "",
        dependencies=tuple(u for u in state.dependencies if u in present),
        property_dependencies={
            key: tuple(u for u in urns if u in present) for key, urns in state.property_dependencies.items()
        },
        deleted_with=state.deleted_with if state.deleted_with in present else "",
        replace_with=tuple(u for u in state.replace_with if u in present),
    )


def with_renamed_references(resources: Sequence[ResourceState], renamed: Mapping[str, str]) -> list[ResourceState]:
    """The same resources with references to former URNs, known by their aliases, pointing to the present ones.

    Source: pulumi `deployment_v3.go`, NormalizeURNReferences.
    """
    return [s if not any(u in renamed for u in references(s)) else _renamed(s, renamed) for s in resources]


def _renamed(state: ResourceState, renamed: Mapping[str, str]) -> ResourceState:
    provider = state.provider
    if provider:
        urn, id = parse_reference(provider)
        provider = make_reference(renamed.get(urn, urn), id)
    return state.with_(
        parent=renamed.get(state.parent, state.parent),
        provider=provider,
        dependencies=tuple(renamed.get(u, u) for u in state.dependencies),
        property_dependencies={k: tuple(renamed.get(u, u) for u in v) for k, v in state.property_dependencies.items()},
        deleted_with=renamed.get(state.deleted_with, state.deleted_with),
        replace_with=tuple(renamed.get(u, u) for u in state.replace_with),
    )


class DependencyGraph:
    """Dependents of the resources of a snapshot, which must be in dependency order."""

    def __init__(self, resources: Sequence[ResourceState]) -> None:
        self._resources = list(resources)

    def depending_on(self, root: ResourceState, ignore: Collection[str]) -> list[ResourceState]:
        """All direct and indirect dependents of `root`, in dependency order, without those whose URN is in `ignore`.

        Being a child is no dependency here: a parent's outputs need not reach its children. Source: pulumi
        `dependency_graph.go`, DependingOn without children.
        """
        affected = {root.urn}
        found: list[ResourceState] = []
        for state in self._resources:
            if state.urn in ignore or state is root or state.urn == root.urn:
                continue
            if any(urn in affected for urn in _dependencies(state)):
                affected.add(state.urn)
                found.append(state)
        return found


def _dependencies(state: ResourceState) -> Iterator[str]:
    if state.provider:
        yield parse_reference(state.provider)[0]
    yield from state.dependencies
    for urns in state.property_dependencies.values():
        yield from urns
    if state.deleted_with:
        yield state.deleted_with
    yield from state.replace_with
