"""Which resources an update deletes, and in which order: pure, from the states that are left.

Not the deletion itself. Source: pulumi `step_generator.go`, GenerateDeletes and ScheduleDeletes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from engine.deploy.graph import references
from engine.deploy.resource import ResourceState
from engine.deploy.step import Op, Step
from engine.deploy.urn import parse_reference


def generate_deletes(resources: Sequence[ResourceState], registered: Collection[str]) -> list[Step]:
    """A step for each old copy that waits for deletion and for each resource the program did not register."""
    steps: list[Step] = []
    for state in resources:
        if state.delete:
            steps.append(Step(Op.DELETE_REPLACED, state.urn, old=state, logical=False))
        elif state.urn in registered:
            continue
        elif state.pending_replacement:
            steps.append(Step(Op.REMOVE_PENDING_REPLACE, state.urn, old=state, logical=False))
        else:
            steps.append(Step(Op.DELETE, state.urn, old=state))
    return steps


def schedule_deletes(steps: Sequence[Step]) -> list[list[Step]]:
    """The steps as antichains: each list may run in parallel, once the one before it is done.

    A resource goes after everything that names it.
    """
    dependents = _dependents(steps)
    waves: list[list[Step]] = []
    waiting = dict(enumerate(steps))
    while waiting:
        ready = [n for n in waiting if not any(d in waiting for d in dependents[n])]
        if not ready:  # a cycle cannot be in a sound snapshot; deleting what is left at once beats not ending
            ready = list(waiting)
        waves.append([waiting.pop(n) for n in ready])
    return waves


def _dependents(steps: Sequence[Step]) -> dict[int, set[int]]:
    by_urn: dict[str, list[int]] = {}
    for number, step in enumerate(steps):
        by_urn.setdefault(step.urn, []).append(number)
    dependents: dict[int, set[int]] = {n: set() for n in range(len(steps))}
    for number, step in enumerate(steps):
        for target in _targets(step.state, by_urn, steps):
            if target != number:
                dependents[target].add(number)
    return dependents


def _targets(state: ResourceState, by_urn: Mapping[str, Sequence[int]], steps: Sequence[Step]) -> Iterator[int]:
    """The steps that delete what `state` names.

    A provider is named by URN and id. Everything else is named by URN alone: an old copy may mean the old or the live
    one, so it goes before both; a live resource never means an old copy that has a live successor.
    """
    provider = parse_reference(state.provider) if state.provider else ("", "")
    for urn in references(state):
        numbers = by_urn.get(urn, ())
        if urn == provider[0]:
            yield from (n for n in numbers if steps[n].state.id == provider[1])
            continue
        some_live = any(not steps[n].state.delete for n in numbers)
        yield from (n for n in numbers if state.delete or not steps[n].state.delete or not some_live)
