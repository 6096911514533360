"""Decides what to do about one registered resource: pure, from the results of Check and Diff.

It asks no provider and changes nothing: who calls it has fetched all it needs. Source: pulumi `step_generator.go`,
generateSteps and continueStepsFromDiff.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from engine.deploy.diff import apply_replace_on_changes
from engine.deploy.goal import Goal
from engine.deploy.property import contains_unknown, strip_secrets
from engine.deploy.provider import DiffResult
from engine.deploy.resource import ResourceState
from engine.deploy.step import Op, Step


class CannotReplace(Exception):
    """A replacement is needed and something protected stands in its way; the message is Pulumi's own."""


@dataclass(frozen=True)
class Dependent:
    """A resource that must go before the one it depends on is replaced; `keys` are its properties that say so."""

    state: ResourceState
    keys: Sequence[str] = ()


@dataclass(frozen=True)
class Facts:
    """All a decision about one registration rests on.

    Attributes:
        new: the goal as state, with checked inputs.
        old: the live state under the same URN or an alias; None if there is none, or it was deleted in this update.
        diff: the provider's answer; None where there is no `old`.
        recreating: its old state is gone because a dependency is replaced; `condemned` is that state.
        replaced_keys: in that case, which properties forced it.
    """

    goal: Goal
    new: ResourceState
    old: ResourceState | None = None
    diff: DiffResult | None = None
    recreating: bool = False
    condemned: ResourceState | None = None
    replaced_keys: Sequence[str] = ()


def effective_diff(facts: Facts) -> DiffResult:
    """The provider's diff with the program's replaceOnChanges applied.

    Raises:
        ValueError: there is an old state and no diff.
    """
    if facts.old is None or facts.diff is None:
        raise ValueError(f"no diff for {facts.new.urn}")
    return apply_replace_on_changes(facts.diff, facts.goal.replace_on_changes, bool(facts.old.init_errors))


def is_triggered(old: ResourceState, new: ResourceState) -> bool:
    """Whether the replacement trigger says to replace: an unknown may be anything, None is no trigger.

    Source: pulumi `step_generator.go`, shouldTriggerReplace.
    """
    before, after = strip_secrets(old.replacement_trigger), strip_secrets(new.replacement_trigger)
    if contains_unknown(before) or contains_unknown(after):
        return True
    return before is not None and after is not None and before != after


def needs_replacement(old: ResourceState, diff: DiffResult, *, triggered: bool = False) -> bool:
    """Whether the old state cannot become the new one in place."""
    if old.pending_replacement or triggered:
        return True
    return bool(diff.changes) and (
        bool(diff.replace_keys) or any(d.kind.is_replace for d in diff.detailed_diff.values())
    )


def deletes_before_replace(goal: Goal, diff: DiffResult) -> bool:
    """Whether the old one must go first; the program's word stands above the provider's."""
    if goal.delete_before_replace is not None:
        return goal.delete_before_replace
    return diff.delete_before_replace


def generate_steps(facts: Facts, dependents: Sequence[Dependent] = (), *, ignore_protect: bool = False) -> list[Step]:
    """The chain of steps that realises one registration; never empty.

    `dependents` (in dependency order) matter only for a replacement that deletes first.
    `ignore_protect` is for a preview, which shows also what an update refuses.

    Raises:
        CannotReplace: a protected resource would have to be replaced.
    """
    new = facts.new
    if facts.recreating:
        return _recreate(facts)
    if facts.old is None:
        return [Step(Op.CREATE, new.urn, new=new)]
    old, diff = facts.old, effective_diff(facts)
    if old.external and not new.external:
        return _create_then_delete(facts, diff) if old.id else [Step(Op.CREATE, new.urn, new=new)]
    if needs_replacement(old, diff, triggered=is_triggered(old, new)):
        return _replace(facts, diff, dependents, ignore_protect)
    if diff.changes or old.init_errors:
        return [Step(Op.UPDATE, new.urn, old, new, diffs=tuple(diff.changed_keys), detailed_diff=diff.detailed_diff)]
    return [Step(Op.SAME, new.urn, old, new)]


def _recreate(facts: Facts) -> list[Step]:
    old = facts.condemned
    if old is None:
        return [Step(Op.CREATE, facts.new.urn, new=facts.new)]
    return [
        Step(Op.REPLACE, facts.new.urn, old, facts.new),
        Step(Op.CREATE_REPLACEMENT, facts.new.urn, old, facts.new, keys=tuple(facts.replaced_keys), logical=False),
    ]


def _replace(facts: Facts, diff: DiffResult, dependents: Sequence[Dependent], ignore_protect: bool) -> list[Step]:
    old, new = facts.old, facts.new
    if old is None:
        raise ValueError(f"nothing to replace for {new.urn}")
    if old.protect and new.protect and not ignore_protect:
        raise CannotReplace(
            f'unable to replace resource "{new.urn}"\nas it is currently marked for protection. To unprotect the '
            "resource, remove the `protect` flag from the resource in your Pulumi program and run `pulumi up`"
        )
    if deletes_before_replace(facts.goal, diff) or old.pending_replacement:
        return _delete_then_create(facts, diff, dependents, ignore_protect)
    return _create_then_delete(facts, diff)


def _create_then_delete(facts: Facts, diff: DiffResult) -> list[Step]:
    create, logical = _replacement_pair(facts, facts.old, diff)
    return [create, logical]  # the old copy, now marked, is deleted after everything else


def _delete_then_create(
    facts: Facts, diff: DiffResult, dependents: Sequence[Dependent], ignore_protect: bool
) -> list[Step]:
    old = facts.old
    if old is None:
        raise ValueError(f"nothing to replace for {facts.new.urn}")
    steps = [_condemn(d.state, facts.new.urn, ignore_protect) for d in reversed(dependents)]
    gone = old.with_(pending_replacement=True)
    if not old.pending_replacement:
        steps.append(Step(Op.DELETE_REPLACED, old.urn, old=old, logical=False, pending_replacement=True))
    create, logical = _replacement_pair(facts, gone, diff)
    return [*steps, logical, create]


def _condemn(state: ResourceState, for_urn: str, ignore_protect: bool) -> Step:
    if state.protect and not state.delete and not ignore_protect:
        raise CannotReplace(
            f'unable to replace resource "{state.urn}" as part of replacing "{for_urn}" as it is currently marked for '
            "protection. To unprotect the resource, remove the `protect` flag from the resource in your Pulumi program "
            f"and run `pulumi up`, or use the command:\n`pulumi state unprotect '{state.urn}'`"
        )
    return Step(Op.DELETE_REPLACED, state.urn, old=state, logical=False, pending_replacement=not state.delete)


def _replacement_pair(facts: Facts, old: ResourceState | None, diff: DiffResult) -> tuple[Step, Step]:
    keys, diffs = tuple(diff.replace_keys), tuple(diff.changed_keys)
    create = Step(Op.CREATE_REPLACEMENT, facts.new.urn, old, facts.new, keys, diffs, diff.detailed_diff, logical=False)
    return create, Step(Op.REPLACE, facts.new.urn, old, facts.new, keys, diffs, diff.detailed_diff)


def is_import(goal: Goal, old: ResourceState | None) -> bool:
    """Whether the program wants what exists under an id of its own, and the stack does not hold just that already."""
    if not goal.custom or not goal.import_id:
        return False
    return old is None or old.external or (old.import_id or old.id) != goal.import_id


def generate_import(new: ResourceState, old: ResourceState | None, *, recreating: bool) -> list[Step]:
    """The steps that take over what exists; what differs from the program is updated after them."""
    if old is None or recreating:
        return [Step(Op.IMPORT, new.urn, old, new)]
    return [Step(Op.IMPORT_REPLACEMENT, new.urn, old, new, logical=False), Step(Op.REPLACE, new.urn, old, new)]


def generate_read(new: ResourceState, old: ResourceState | None) -> list[Step]:
    """The steps of a ReadResource; a managed resource with another id is given up and its old copy deleted later."""
    if old is not None and not old.external and old.id != new.id:
        return [
            Step(Op.READ_REPLACEMENT, new.urn, old, new, logical=False),
            Step(Op.REPLACE, new.urn, old, new),
        ]
    return [Step(Op.READ, new.urn, old, new)]
