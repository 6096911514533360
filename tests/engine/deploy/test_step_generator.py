"""Every decision about one registration, without any provider."""

from __future__ import annotations

from typing import Any

import pytest

from engine.deploy.goal import AliasSpec, Goal, alias_urns
from engine.deploy.provider import DiffKind, DiffResult, PropertyDiff
from engine.deploy.resource import ResourceState
from engine.deploy.step_generator import CannotReplace, Dependent, Facts, generate_read, generate_steps

URN = "urn:pulumi:dev::lab::fake:index:Thing::a"
OLD = ResourceState(URN, "fake:index:Thing", True, "id-1")
NEW = OLD.with_(id="")
SAME, UPDATE = DiffResult(False), DiffResult(True, changed_keys=["size"])
REPLACE = DiffResult(True, replace_keys=["kind"], changed_keys=["kind"])
ONLY_DETAIL = DiffResult(True, detailed_diff={"kind": PropertyDiff(DiffKind.UPDATE_REPLACE)})
FIRST = DiffResult(True, replace_keys=["slot"], delete_before_replace=True)


def goal(**fields: Any) -> Goal:
    return Goal("fake:index:Thing", "a", True, **fields)


@pytest.mark.parametrize(
    ("facts", "ops"),
    [
        (Facts(goal(), NEW), ["create"]),
        (Facts(goal(), NEW, OLD, SAME), ["same"]),
        (Facts(goal(), NEW, OLD, UPDATE), ["update"]),
        (Facts(goal(), NEW, OLD.with_(init_errors=("x",)), SAME), ["update"]),
        (Facts(goal(), NEW, OLD, REPLACE), ["create-replacement", "replace"]),
        (Facts(goal(), NEW, OLD, ONLY_DETAIL), ["create-replacement", "replace"]),
        (Facts(goal(), NEW, OLD, FIRST), ["delete-replaced", "replace", "create-replacement"]),
        (Facts(goal(delete_before_replace=False), NEW, OLD, FIRST), ["create-replacement", "replace"]),
        (
            Facts(goal(delete_before_replace=True), NEW, OLD, REPLACE),
            ["delete-replaced", "replace", "create-replacement"],
        ),
        (Facts(goal(), NEW, OLD.with_(pending_replacement=True), SAME), ["replace", "create-replacement"]),
        (Facts(goal(replace_on_changes=["size"]), NEW, OLD, UPDATE), ["create-replacement", "replace"]),
        (Facts(goal(), NEW, OLD.with_(external=True), SAME), ["create-replacement", "replace"]),
        (Facts(goal(), NEW, recreating=True, condemned=OLD), ["replace", "create-replacement"]),
        (Facts(goal(), NEW, OLD.with_(protect=True), REPLACE), ["create-replacement", "replace"]),
    ],
)
def test_generate_steps(facts: Facts, ops: list[str]) -> None:
    assert [str(s.op) for s in generate_steps(facts)] == ops


def test_dependents_go_in_reverse_order_and_become_promises() -> None:
    b, c = OLD.with_(urn=f"{URN}b"), OLD.with_(urn=f"{URN}c")
    steps = generate_steps(Facts(goal(), NEW, OLD, FIRST), [Dependent(b), Dependent(c)])
    assert [s.urn for s in steps] == [c.urn, b.urn, URN, URN, URN]
    assert all(s.pending_replacement for s in steps[:3])


def test_protected_is_not_replaced() -> None:
    with pytest.raises(CannotReplace, match="marked for protection"):
        generate_steps(Facts(goal(), NEW.with_(protect=True), OLD.with_(protect=True), REPLACE))


@pytest.mark.parametrize(
    ("old", "ops"),
    [
        (None, ["read"]),
        (OLD, ["read"]),
        (OLD.with_(external=True, id="other"), ["read"]),
        (OLD.with_(id="other"), ["read-replacement", "replace"]),
    ],
)
def test_generate_read(old: ResourceState | None, ops: list[str]) -> None:
    assert [str(s.op) for s in generate_read(OLD.with_(external=True), old)] == ops


@pytest.mark.parametrize(
    ("alias", "urn"),
    [
        (AliasSpec(urn="urn:pulumi:x::y::z::w"), "urn:pulumi:x::y::z::w"),
        (AliasSpec(name="old"), "urn:pulumi:dev::lab::g:G$fake:index:Thing::old"),
        (AliasSpec(type="fake:index:Other"), "urn:pulumi:dev::lab::g:G$fake:index:Other::a"),
        (AliasSpec(no_parent=True), "urn:pulumi:dev::lab::fake:index:Thing::a"),
        (AliasSpec(stack="prod", no_parent=True), "urn:pulumi:prod::lab::fake:index:Thing::a"),
    ],
)
def test_alias_urns(alias: AliasSpec, urn: str) -> None:
    wish = goal(parent="urn:pulumi:dev::lab::g:G::g", aliases=(alias,))
    assert alias_urns(wish, "dev", "lab", []) == [urn]


def test_aliases_inherited_from_a_renamed_parent() -> None:
    wish = Goal("fake:index:Thing", "new-disk", True, parent="urn:pulumi:dev::lab::g:G::new")
    former = "urn:pulumi:dev::lab::g:G::old"
    assert alias_urns(wish, "dev", "lab", [former]) == ["urn:pulumi:dev::lab::g:G$fake:index:Thing::old-disk"]
