"""Which resources an update deletes, and in which order: pure, from the states that are left.

Not the deletion itself. Source: pulumi `step_generator.go`, GenerateDeletes and ScheduleDeletes.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

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
        state = step.state
        provider = parse_reference(state.provider) if state.provider else None
        for urn in references(state):
            for target in by_urn.get(urn, ()):
                other = steps[target].state
                if provider and provider[0] == urn and other.id != provider[1]:
                    continue
                # An old copy names its dependencies by URN and may mean the old or the live copy: it goes before both.
                # A live resource never depends on an old copy that has a live successor being deleted too.
                if target != number and not (other.delete and not state.delete and _has_live(by_urn[urn], steps)):
                    dependents[target].add(number)
    return dependents


def _has_live(numbers: Sequence[int], steps: Sequence[Step]) -> bool:
    return any(not steps[n].state.delete for n in numbers)
