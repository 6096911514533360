"""Edits of a snapshot by hand: forget a resource, protect it, give it or its stack another name. Pure.

Source: pulumi `pkg/resource/edit/operations.go`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from engine.deploy.graph import references
from engine.deploy.property import PropertyValue, ResourceReference, transform
from engine.deploy.resource import PendingOperation, ResourceState
from engine.deploy.snapshot import Snapshot
from engine.deploy.urn import ROOT_STACK_TYPE, parse_reference, urn_name, urn_type


class CannotEdit(Exception):
    """The edit would leave a state that must not be; the message says what to do."""


class NothingToDestroy(Exception):
    """All that is left is protected; the message says so."""


def find(snapshot: Snapshot, urn: str) -> ResourceState:
    """The one resource of that URN.

    Raises:
        CannotEdit: none, or more than one.
    """
    found = [r for r in snapshot.resources if r.urn == urn]
    if not found:
        raise CannotEdit(_no_such(urn))
    if len(found) > 1:
        ids = ", ".join(r.id + (" (pending deletion)" if r.delete else "") for r in found)
        raise CannotEdit(
            f"'{urn}' is the URN of {len(found)} resources ({ids}): run `pulumi up` to finish the replacement, or edit "
            "what `pulumi stack export` prints and `pulumi stack import` it"
        )
    return found[0]


def delete_resources(snapshot: Snapshot, urns: Collection[str], *, force: bool, with_dependents: bool) -> Snapshot:
    """Forget resources; what they stand for in the cloud stays.

    Args:
        force: also if it is protected.
        with_dependents: forget also everything that needs it.
    """
    everything = {r.urn for r in snapshot.resources} <= set(urns)
    doomed = set(urns) if everything else {find(snapshot, urn).urn for urn in urns}
    _check_unprotected(snapshot, doomed, force)
    dependents = _dependents(snapshot.resources, doomed)
    if dependents and not with_dependents:
        names = "\n".join(f" * {json.dumps(urn_name(r.urn)):<15} ({r.urn})" for r in dependents)
        raise CannotEdit(
            f"{', '.join(sorted(doomed))} can't be safely deleted because the following resources depend on it:\n"
            f"{names}\n\nDelete those resources first or pass --target-dependents."
        )
    doomed |= {r.urn for r in dependents}
    _check_unprotected(snapshot, doomed, force)
    return replace(snapshot, resources=[r for r in snapshot.resources if r.urn not in doomed])


def _check_unprotected(snapshot: Snapshot, doomed: Collection[str], force: bool) -> None:
    protected = [r.urn for r in snapshot.resources if r.urn in doomed and r.protect]
    if protected and not force:
        raise CannotEdit(
            f"{protected[0]} can't be safely deleted because it is protected. "
            "Re-run this command with --force to force deletion"
        )


def _no_such(urn: str) -> str:
    return (
        f'No such resource "{urn}" exists in the current state\n\nTo list the resource URNs in the stack, run `pulumi '
        "stack --show-urns`; to inspect the full state, run `pulumi stack export`."
    )


def _dependents(resources: Sequence[ResourceState], roots: Collection[str]) -> list[ResourceState]:
    """Everything that needs the roots, directly or not, in the snapshot's order."""
    needed, found = set(roots), []
    for state in resources:  # ordered: whoever needs something comes after it
        if state.urn not in needed and any(urn in needed for urn in references(state)):
            needed.add(state.urn)
            found.append(state)
    return found


def unprotected(snapshot: Snapshot) -> tuple[str, ...]:
    """What a destroy may delete that leaves protected resources, and all they need, alone.

    Raises:
        NothingToDestroy: nothing is left to delete.
    """
    kept: set[str] = set()
    for state in reversed(snapshot.resources):  # ordered: what something needs comes before it
        if state.protect or state.urn in kept:
            kept |= {state.urn, *references(state)}
            if state.provider:
                kept.add(parse_reference(state.provider)[0])
    free = tuple(dict.fromkeys(r.urn for r in snapshot.resources if r.urn not in kept))
    if kept and not free:
        raise NothingToDestroy(
            f"There were no unprotected resources to destroy. There are still {len(kept)} protected resources "
            "associated with this stack."
        )
    return free


def marked(snapshot: Snapshot, urns: Collection[str], **marks: bool) -> Snapshot:
    """Resources with `protect` or `taint` set or taken away."""
    return replace(snapshot, resources=[r.with_(**marks) if r.urn in urns else r for r in snapshot.resources])


def rename_resource(snapshot: Snapshot, urn: str, name: str) -> Snapshot:
    """Give a resource another name, also where others refer to it."""
    find(snapshot, urn)
    renamed = f"{urn.removesuffix(urn_name(urn))}{name}"
    if not name or "::" in name:
        raise CannotEdit(f"{name!r} cannot be a resource's name: it must have characters, and no `::`")
    if any(r.urn == renamed for r in snapshot.resources):
        raise CannotEdit(f"'{renamed}' exists already: choose another name")
    return _with_urns(snapshot, lambda other: renamed if other == urn else other)


def rename_stack(snapshot: Snapshot, stack: str) -> Snapshot:
    """Move every resource to a stack of another name; the root resource is called after it."""

    def renamed(urn: str) -> str:
        if not urn.startswith("urn:pulumi:"):
            return urn
        _, project, types, name = urn.split("::", 3)
        if urn_type(urn) == ROOT_STACK_TYPE:
            name = f"{project}-{stack}"
        return f"urn:pulumi:{stack}::{project}::{types}::{name}"

    return _with_urns(snapshot, renamed)


def _with_urns(snapshot: Snapshot, renamed: Callable[[str], str]) -> Snapshot:
    return replace(
        snapshot,
        resources=[_renamed(r, renamed) for r in snapshot.resources],
        pending_operations=[
            PendingOperation(p.type, _renamed(p.resource, renamed)) for p in snapshot.pending_operations
        ],
    )


def _renamed(state: ResourceState, renamed: Callable[[str], str]) -> ResourceState:
    def reference(text: str) -> str:
        if not text:
            return ""
        urn, id = parse_reference(text)
        return f"{renamed(urn)}::{id}"

    def value(inner: PropertyValue) -> PropertyValue:
        return replace(inner, urn=renamed(inner.urn)) if isinstance(inner, ResourceReference) else inner

    return state.with_(
        urn=renamed(state.urn),
        inputs=transform(state.inputs, value),
        outputs=transform(state.outputs, value),
        parent=renamed(state.parent) if state.parent else "",
        provider=reference(state.provider),
        dependencies=[renamed(d) for d in state.dependencies],
        property_dependencies={k: [renamed(u) for u in urns] for k, urns in state.property_dependencies.items()},
        deleted_with=renamed(state.deleted_with) if state.deleted_with else "",
        replace_with=[renamed(u) for u in state.replace_with],
    )
