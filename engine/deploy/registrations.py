"""What the program of one update has registered so far, beside the old states it continues.

It compares nothing and makes nothing. Source: pulumi `deployment.go` (olds, news), `step_generator.go` (urns, aliases).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from engine.deploy.goal import Goal, alias_urns
from engine.deploy.resource import ResourceState
from engine.deploy.step import Step
from engine.deploy.step_executor import Execution
from engine.deploy.update_target import UpdateTarget
from engine.deploy.urn import ROOT_STACK_TYPE, is_provider_type, make_urn


class Registrations:
    """URNs, old states and new ones.

    Attributes:
        olds: the stack as the update found it, in the order of the checkpoint.
        made: URN → the last step that made the resource what it is.
        seen: URNs that are taken.
        root: URN of the root stack resource; "" before it is registered.
    """

    def __init__(self, target: UpdateTarget, execution: Execution) -> None:
        self._target = target
        self._x = execution
        self.olds: dict[str, ResourceState] = {}
        self.olds_in_order: Sequence[ResourceState] = ()
        self.made: dict[str, Step] = {}
        self.seen: set[str] = set()
        self.root = ""
        self._aliases: dict[str, list[str]] = {}
        self._refreshed: dict[int, ResourceState | None] = {}  # id() of a state in `olds_in_order` → what it is now
        self._claimed: dict[str, str] = {}  # former URN → who took it over by an alias

    def start(self) -> None:
        """Take the resources as they are now for the old state of everything to come."""
        self.olds_in_order = list(self._x.ledger.snapshot().resources)
        self.olds = {s.urn: s for s in self.olds_in_order if not s.delete}

    def refreshed(self, old: ResourceState, new: ResourceState | None) -> None:
        """Take what a resource became for its old state; None: it is gone."""
        self._refreshed[id(old)] = new
        self.olds.pop(old.urn, None)
        if new is not None:
            self.olds[new.urn] = new

    def current_olds(self) -> list[ResourceState]:
        """The old states in the order of the checkpoint, as the last refresh found them."""
        states = (self._refreshed.get(id(s), s) for s in self.olds_in_order)
        return [s for s in states if s is not None]

    @property
    def registered(self) -> set[str]:
        """URNs the program registered or read, and former URNs of those it renamed."""
        former = {step.old.urn for step in self.made.values() if step.old is not None}
        return self.seen | former

    def state_of(self, urn: str) -> ResourceState | None:
        """The state of a resource registered in this update."""
        step = self.made.get(urn)
        return step.new if step else None

    def former(self, urn: str) -> ResourceState | None:
        """The state before this update of a resource registered in it."""
        step = self.made.get(urn)
        return step.old if step else None

    def add(self, goal: Goal) -> tuple[Goal, str]:
        """Take a URN for the goal; returns the goal with its parent filled in, and the URN.

        Raises:
            StepFailed: it is taken, or nobody knows the parent.
        """
        goal = self._with_parent(goal)
        urn = make_urn(self._target.stack, self._target.project, goal.parent, goal.type, goal.name)
        if urn in self.seen:
            raise self._x.failure(urn, f"Duplicate resource URN '{urn}'; try giving it a unique name")
        self.seen.add(urn)
        if goal.type == ROOT_STACK_TYPE:
            self.root = urn
        return goal, urn

    def urn_of(self, parent: str, type_: str, name: str) -> str:
        """The URN a resource would have."""
        return make_urn(self._target.stack, self._target.project, parent or self.root, type_, name)

    def _with_parent(self, goal: Goal) -> Goal:
        if goal.parent:
            if goal.parent not in self.seen:
                raise self._x.failure("", f"could not find parent resource {goal.parent}")
            return goal
        default = is_provider_type(goal.type) and goal.name.startswith("default") and not goal.parent
        return goal if default or not self.root else replace(goal, parent=self.root)

    def find_old(self, urn: str, goal: Goal) -> ResourceState | None:
        """The old state a resource continues, under its URN or a former one.

        Raises:
            StepFailed: another resource has taken its URN over by an alias.
        """
        parent_aliases = self._aliases.get(goal.parent, [])
        former = alias_urns(goal, self._target.stack, self._target.project, parent_aliases)
        self._aliases[urn] = former
        if urn in self._claimed:
            raise self._x.failure(
                urn,
                f"Duplicate resource URN '{urn}' conflicting with alias on resource with URN '{self._claimed[urn]}'",
            )
        for candidate in (urn, *former):
            old = self.olds.get(candidate)
            if old is not None and (candidate == urn or candidate not in self.seen | self._claimed.keys()):
                if candidate != urn:
                    self._claimed[candidate] = urn
                return old
        return None
