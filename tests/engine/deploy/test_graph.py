"""Dependency order, dangling and renamed references, and the order of deletes."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from engine.deploy.deletes import generate_deletes, schedule_deletes
from engine.deploy.graph import (
    DependencyGraph,
    in_dependency_order,
    with_renamed_references,
    without_dangling_references,
)
from engine.deploy.resource import ResourceState
from engine.deploy.snapshot import Snapshot
from engine.deploy.step import Op


def urn(name: str) -> str:
    return f"urn:pulumi:dev::lab::fake:index:Thing::{name}"


def state(name: str, *needs: str, id: str = "", **fields: Any) -> ResourceState:
    return ResourceState(
        urn(name), "fake:index:Thing", True, id or name, dependencies=tuple(urn(n) for n in needs), **fields
    )


@st.composite
def graphs(draw: st.DrawFn) -> list[ResourceState]:
    """Sound snapshots of up to seven resources, some with an old copy that waits for deletion."""
    found: list[ResourceState] = []
    for n in range(draw(st.integers(0, 7))):
        needs = [str(k) for k in range(n) if draw(st.booleans())]
        found.append(state(str(n), *needs))
    for n in range(len(found)):
        if draw(st.booleans()):
            found.append(found[n].with_(id=f"old-{n}", delete=True))
    return found


@given(graphs(), st.randoms(use_true_random=False))
def test_any_shuffle_comes_back_in_order(resources: list[ResourceState], random: Any) -> None:
    shuffled = list(resources)
    random.shuffle(shuffled)
    ordered = in_dependency_order(shuffled)
    Snapshot(ordered).verify_integrity()
    assert sorted(map(repr, ordered)) == sorted(map(repr, resources))


def test_what_is_in_order_stays_as_it_is() -> None:
    resources = [state("b"), state("a"), state("c", "a")]
    assert in_dependency_order(resources) == resources


@given(graphs())
def test_deletes_go_before_what_they_need(resources: list[ResourceState]) -> None:
    steps = generate_deletes(resources, set())
    waves = schedule_deletes(steps)
    assert sum(len(w) for w in waves) == len(resources)
    left = list(resources)
    for wave in waves:
        for step in wave:
            left.remove(step.state)
        Snapshot(in_dependency_order(left)).verify_integrity()


def test_generate_deletes_by_kind() -> None:
    kept, gone = state("kept"), state("gone")
    old, promised = state("kept", id="old", delete=True), state("promised", pending_replacement=True)
    steps = generate_deletes([kept, gone, old, promised], {kept.urn})
    assert [(s.op, s.state.id, s.logical) for s in steps] == [
        (Op.DELETE, "gone", True),
        (Op.DELETE_REPLACED, "old", False),
        (Op.REMOVE_PENDING_REPLACE, "promised", False),
    ]


def test_provider_goes_last_and_by_id() -> None:
    provider_urn = "urn:pulumi:dev::lab::pulumi:providers:fake::p"
    new = ResourceState(provider_urn, "pulumi:providers:fake", True, "new")
    old = ResourceState(provider_urn, "pulumi:providers:fake", True, "old", delete=True)
    user = state("a", provider=f"{provider_urn}::old")
    ordered = in_dependency_order([user, new, old])
    assert ordered.index(old) < ordered.index(user)
    waves = schedule_deletes(generate_deletes([new, old, user], set()))
    position = {s.state.id: n for n, w in enumerate(waves) for s in w}
    assert position["a"] < position["old"]


def test_dangling_references_are_dropped() -> None:
    child = state("c", "gone", "a", parent=urn("gone"), property_dependencies={"k": (urn("gone"), urn("a"))})
    a, mended = without_dangling_references([state("a"), child])
    assert mended.dependencies == (urn("a"),) and mended.parent == ""
    assert mended.property_dependencies == {"k": (urn("a"),)} and a == state("a")


def test_renamed_references() -> None:
    user = state("u", "old", parent=urn("old"), provider=f"{urn('old')}::id", deleted_with=urn("old"))
    (renamed,) = with_renamed_references([user], {urn("old"): urn("new")})
    assert renamed.dependencies == (urn("new"),) and renamed.parent == urn("new") == renamed.deleted_with
    assert renamed.provider == f"{urn('new')}::id"


def test_dependents_are_found_through_others() -> None:
    a, b, c, d = state("a"), state("b", "a"), state("c", "b"), state("d")
    graph = DependencyGraph([a, b, c, d])
    assert graph.depending_on(a, set()) == [b, c]
    assert graph.depending_on(a, {b.urn}) == []
