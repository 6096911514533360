"""The plan in the course of one update: the one it must keep to, and the one it makes for a later update.

Says what is not allowed; stopping the update is the caller's. Source: pulumi `step_generator.go` (validateSteps),
`deployment_executor.go` (the check for operations that never came).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from engine.deploy.goal import Goal
from engine.deploy.plan import (
    Plan,
    PlanViolation,
    ResourcePlan,
    check_diff,
    check_goal,
    diff_properties,
    is_allowed,
    plan_goal,
    unchanged_goal,
)
from engine.deploy.property import PropertyMap
from engine.deploy.resource import ResourceState
from engine.deploy.step import Op, Step
from engine.model.ids import random_hex

_SEED_BYTES = 32


class Planning:
    """One update's plans; without either it does nothing."""

    def __init__(self, expected: Plan | None = None, *, generating: bool = False) -> None:
        """`expected`: what the update may do; `generating`: whether a plan is wanted of it."""
        self._expected = expected
        self._generating = generating
        self._left = {urn: list(plan.ops) for urn, plan in expected.resources.items()} if expected else {}
        self._made: dict[str, ResourcePlan] = {}

    @property
    def made(self) -> Plan | None:
        """What this update did, as a plan for the next."""
        return Plan(self._made) if self._generating else None

    def seed(self, urn: str) -> bytes:
        """The random bytes a resource's name is made from: the plan's, so that the update makes the planned name."""
        planned = self._expected.resources.get(urn) if self._expected else None
        if planned is not None and planned.seed:
            return planned.seed
        made = self._made.get(urn)
        if made is not None and made.seed:
            return made.seed
        seed = bytes.fromhex(random_hex(2 * _SEED_BYTES))
        if self._generating:
            self._made[urn] = replace(made or ResourcePlan(), seed=seed)
        return seed

    def registering(self, urn: str, goal: Goal, old: ResourceState | None, news: PropertyMap) -> None:
        """Take what the program wants of a resource; `old` is None where it starts afresh.

        Raises:
            PlanViolation: the plan does not allow it.
        """
        olds = old.inputs if old is not None else {}
        if self._generating:
            plan = self._made.get(urn, ResourcePlan())
            self._made[urn] = replace(plan, goal=plan_goal(goal, olds, news), seed=self.seed(urn))
        if self._expected is None:
            return
        planned = self._expected.resources.get(urn)
        try:
            if planned is not None:
                check_goal(planned.goal, goal, olds, news)
            elif old is not None:
                check_goal(unchanged_goal(old), goal, olds, news)
        except PlanViolation as err:
            raise PlanViolation(f"resource {urn} violates plan: {err}", urn) from err

    def steps(self, steps: Sequence[Step]) -> None:
        """Take the operations that are to be done next.

        Raises:
            PlanViolation: the plan does not allow one of them.
        """
        for step in steps:
            if self._expected is not None:
                self._check(step)
            if self._generating:
                plan = self._made.get(step.urn, ResourcePlan())
                self._made[step.urn] = replace(plan, ops=(*plan.ops, str(step.op)))

    def _check(self, step: Step) -> None:
        left = self._left.get(step.urn)
        if left is None:
            if step.op is not Op.SAME:
                raise _disallowed(step, "no steps were expected for this resource")
            return
        if not left:
            raise _disallowed(step, "no more steps were expected for this resource")
        planned = left.pop(0)
        if not is_allowed(step.op, planned):
            raise _disallowed(step, f"this resource is constrained to {planned}")

    def done(self, urn: str, outputs: PropertyMap | None) -> None:
        """Take the outputs a resource has after its operations; a component has none before it registers them."""
        if urn in self._made:
            self._made[urn] = replace(self._made[urn], outputs=outputs)

    def registering_outputs(self, urn: str, olds: PropertyMap, news: PropertyMap) -> None:
        """Take the outputs the program registers for a component or the stack.

        Raises:
            PlanViolation: the plan does not allow them.
        """
        if self._expected is not None:
            planned = self._expected.resources.get(urn)
            if planned is None or planned.goal is None:
                raise PlanViolation(f"no plan for resource {urn}", urn)
            try:
                check_diff(planned.goal.output_diff, olds, news)
            except PlanViolation as err:
                raise PlanViolation(f"resource violates plan: {err}", urn) from err
        plan = self._made.get(urn)
        if plan is not None and plan.goal is not None:
            goal = replace(plan.goal, output_diff=diff_properties(olds, news))
            self._made[urn] = replace(plan, goal=goal, outputs=news)

    def missing(self, before: Collection[str]) -> Iterator[tuple[str, str]]:
        """(URN, sentence) for each resource whose planned operations never came; `before`: what the update found.

        The delete of what was gone already is not missed.
        """
        for urn, left in self._left.items():
            if left and not (left == [Op.DELETE] and urn not in before):
                yield urn, f"expected resource operations for {urn} but none were seen"


def _disallowed(step: Step, why: str) -> PlanViolation:
    return PlanViolation(f"{step.op} is not allowed by the plan: {why}", step.urn)
