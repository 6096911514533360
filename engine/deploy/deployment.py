"""What a program registers and reads, made real: has Check and Diff asked for, steps generated, and runs them.

It knows neither gRPC (`monitor.py`) nor the update's phases (`update.py`). Source: pulumi `deployment_executor.go`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from engine.deploy.assets import AssetError, has_assets, with_hashes
from engine.deploy.check_diff import CheckDiff, shown
from engine.deploy.construct import Components
from engine.deploy.default_providers import DefaultProviders
from engine.deploy.functions import Functions
from engine.deploy.goal import Goal
from engine.deploy.graph import references
from engine.deploy.packages import PackageRequest
from engine.deploy.plan import PlanViolation
from engine.deploy.planning import Planning
from engine.deploy.property import PropertyMap
from engine.deploy.provider import DiffResult
from engine.deploy.refresh import Refresher
from engine.deploy.registrations import Registrations
from engine.deploy.registry import SWITCH_TO_CLI
from engine.deploy.resource import ResourceState
from engine.deploy.step import Op, Step
from engine.deploy.step_executor import Execution, StepExecutor, StepFailed
from engine.deploy.step_generator import (
    CannotReplace,
    Dependent,
    Facts,
    deletes_before_replace,
    effective_diff,
    generate_import,
    generate_read,
    generate_steps,
    is_import,
    is_triggered,
    needs_replacement,
)
from engine.deploy.targets import Selection
from engine.deploy.update_target import UpdateTarget
from engine.deploy.urn import ROOT_STACK_TYPE, is_provider_type, make_reference, package_of
from engine.deploy.worker_pool import Refused, WorkerPool


@dataclass(frozen=True)
class Registered:
    """The answer to a registration.

    Attributes:
        succeeded: False means that it or something it depends on failed, and the update goes on.
        unknown: the update's targets leave it out and it does not exist, so nobody knows its outputs.
    """

    urn: str
    id: str
    outputs: PropertyMap
    succeeded: bool = True
    unknown: bool = False


class Deployment:
    """The registrations of one update, on the engine's event loop; called by the monitor and the update."""

    def __init__(
        self,
        target: UpdateTarget,
        execution: Execution,
        selection: Selection,
        workers: WorkerPool,
        *,
        parallel: int,
        continue_on_error: bool,
        planning: Planning,
        destroying: bool = False,
    ) -> None:
        """`destroying`: the program runs only for its providers and hooks; nothing else is made or changed."""
        self._target = target
        self._selection = selection
        self._x = execution
        self._workers = workers
        self._continue_on_error = continue_on_error
        self._destroying = destroying
        self._planning = planning
        self.executor = StepExecutor(execution, parallel)
        self.registrations = Registrations(target, execution)
        self.check_diff = CheckDiff(execution, self.registrations, planning)
        self._default_providers = DefaultProviders(target, execution, workers, self._register_provider)
        self.refresher: Refresher | None = None  # set: what the program registers is read from the cloud first
        self.refreshing_only = False  # and nothing else is done to it
        self.functions = Functions(execution, workers, self._default_providers, self.registrations)
        self.packages = execution.registry.packages
        self.components = Components(execution, workers, self._default_providers)
        self._generating = asyncio.Lock()
        self._operated: set[str] = set()
        self._replaced: set[str] = set()
        self._condemned: dict[str, Dependent] = {}
        self._lost: set[str] = set()
        self._skipped: set[str] = set()
        self._stack_outputs: PropertyMap | None = None
        self.refused = False

    @property
    def root(self) -> Path:
        """The project's folder."""
        return self._target.root

    async def register(self, goal: Goal) -> Registered:
        """Make the goal real.

        Raises:
            UpdateStopped: this update takes no more registrations, or this one failed.
        """
        return await self._workers.answer(partial(self._register, goal))

    async def read(self, goal: Goal, id: str) -> Registered:
        """Read an existing resource into the stack without managing it."""
        return await self._workers.answer(partial(self._read, goal, id))

    async def register_outputs(self, urn: str, outputs: PropertyMap) -> None:
        """Take a component's outputs; the root stack's wait for the end of the update."""
        self._workers.check_running()
        step = self.registrations.made.get(urn)
        if step is None or step.new is None:
            raise Refused(f"cannot register outputs of {urn}: it was not registered")
        if step.new.type == ROOT_STACK_TYPE:
            await self._workers.answer(partial(self._plan_outputs, urn, outputs))
            self._stack_outputs = outputs
            return
        await self._workers.answer(partial(self._set_outputs, urn, step, outputs))

    def finalize_stack_outputs(self, *, succeeded: bool) -> PropertyMap:
        """Store the root stack's outputs; after a failure old outputs nobody replaced stay."""
        step = self.registrations.made.get(self.registrations.root)
        if step is None or step.new is None:
            return {}
        if self._stack_outputs is not None:
            outputs = self._stack_outputs
            if not succeeded and step.old is not None:
                outputs = {**step.old.outputs, **outputs}
            self._store_outputs(self.registrations.root, step, outputs)
        state = self.registrations.state_of(self.registrations.root)
        return state.outputs if state else {}

    async def _register(self, goal: Goal) -> Registered:
        if has_assets(goal.properties):
            goal = replace(goal, properties=await self._hashed(goal))
        goal, urn, old = await self._identify(goal)
        if any(u in self._lost for u in self._needs(goal)):
            self._lost.add(urn)
            return Registered(urn, "", {}, succeeded=False)
        try:
            return await self._realise(urn, goal, old)
        except StepFailed:
            if not self._continue_on_error or is_provider_type(goal.type):
                raise
            self._workers.failed = True
            self._lost.add(urn)
            return Registered(urn, "", {}, succeeded=False)

    async def _register_provider(self, goal: Goal) -> str:
        made = await self._register(goal)
        return make_reference(made.urn, made.id)

    async def _hashed(self, goal: Goal) -> PropertyMap:
        try:
            hashed: PropertyMap = await asyncio.to_thread(with_hashes, goal.properties, self._target.directory)
        except AssetError as err:
            raise self._x.failure("", f"{goal.type} resource '{goal.name}': {err}") from err
        return hashed

    async def _realise(self, urn: str, goal: Goal, old: ResourceState | None) -> Registered:
        if self.refresher is not None:
            old = await self._refreshed(self.refresher, urn, goal, old)
            if self.refreshing_only and self._is_left_as_it_is(urn, goal):
                return self._leave_refreshed(urn, goal, old)
        if self._destroying and self._is_left_as_it_is(urn, goal):
            return await self._leave_for_deletion(urn, goal, old)
        condemned = self._condemned.get(urn) or (self._condemned.get(old.urn) if old else None)
        if not condemned and self._selection.narrows and not self._selection.includes(goal.new_state(urn, {}, old)):
            return await self._leave_alone(urn, goal, old)
        self._check_nothing_skipped(urn, goal)
        imported: Step | None = None
        if is_import(goal, old):
            imported = await self._import(urn, goal, old)
            old, condemned = imported.state, None
        comparable = old if condemned is None and old is not None and not old.external else None
        known = None if self._is_to_be_replaced(urn, comparable) else comparable
        inputs = await self.check_diff.checked(urn, goal, known)
        self._plan_goal(urn, goal, known, inputs)
        inputs = await self.check_diff.reviewed(urn, goal, inputs)
        diff = await self._diff(urn, goal, comparable, inputs) if comparable else None
        async with self._generating:
            self._workers.check_running()
            steps = await self._generate(urn, goal, inputs, old, diff)
            self._operated.add(urn)
        if imported is not None and steps[0].op is Op.SAME:
            return self._answer(urn, imported)
        return await self._run_registration(urn, steps)

    async def _import(self, urn: str, goal: Goal, old: ResourceState | None) -> Step:
        async with self._generating:
            self._workers.check_running()
            condemned = self._condemned.pop(old.urn, None) if old is not None else None
            self._operated.add(urn)
        before = condemned.state if condemned else old
        new = goal.new_state(urn, goal.properties, None)
        steps = generate_import(new, before, recreating=condemned is not None)
        self.plan_steps(steps)
        return replace(await self.executor.run_chain(steps), old=before)

    async def _leave_alone(self, urn: str, goal: Goal, old: ResourceState | None) -> Registered:
        """What the update's targets leave out stays as it is; what does not exist is not made."""
        self._plan_goal(urn, goal, old, old.inputs if old is not None else {})
        if old is None:
            new = goal.new_state(urn, {}, None)
            step = Step(Op.SAME, urn, new, new)
            self.plan_steps([step])
            self.executor.skip(step)
            self.registrations.made[urn] = step
            self._skipped.add(urn)
            return Registered(urn, "", {}, unknown=True)
        if old.custom and old.provider and not self._x.registry.is_active(old.provider):
            raise self._x.failure(
                urn,
                f"provider {old.provider} for resource {urn} has not been registered yet, this is due to a change of "
                "providers mixed with --target. Change your program back to the original providers",
            )
        self.registrations.seen.add(old.urn)
        self._operated.add(urn)
        kept = Step(Op.SAME, old.urn, old, old.with_(id=""))
        self.plan_steps([kept])
        made = await self.executor.run_chain([kept])
        self.registrations.made[urn] = self.registrations.made[old.urn] = made
        return Registered(old.urn, old.id, old.outputs)

    async def _refreshed(
        self, refresher: Refresher, urn: str, goal: Goal, old: ResourceState | None
    ) -> ResourceState | None:
        """The old state as the cloud has it now."""
        if old is None or not goal.custom or is_provider_type(goal.type) or not self._selection.includes(old):
            return old
        new = await refresher.refresh(old, goal.new_state(urn, old.inputs, old))
        self.registrations.refreshed(old, new)
        return new

    def _leave_refreshed(self, urn: str, goal: Goal, old: ResourceState | None) -> Registered:
        """A refresh makes nothing; what is not there is unknown to the program.

        Source: pulumi `step_generator.go`, refreshMode.
        """
        self._operated.add(urn)
        if old is None:
            new = goal.new_state(urn, goal.properties, None)
            step = Step(Op.SAME, urn, new, new)
            self.executor.skip(step)
            self.registrations.made[urn] = step
            self._skipped.add(urn)
            return Registered(urn, "", {}, unknown=True)
        self.registrations.made[urn] = Step(Op.SAME, urn, old, old)
        return Registered(urn, old.id, old.outputs)

    def _is_left_as_it_is(self, urn: str, goal: Goal) -> bool:
        if goal.custom and not is_provider_type(goal.type):
            return True
        return not self._skipped.isdisjoint(references(goal.new_state(urn, {}, None)))

    async def _leave_for_deletion(self, urn: str, goal: Goal, old: ResourceState | None) -> Registered:
        """A destroy makes nothing and keeps what there is, with the options and hooks the program gives it now.

        Source: pulumi `step_generator.go`, destroyMode.
        """
        self._operated.add(urn)
        if old is None or is_provider_type(goal.type):
            new = goal.new_state(urn, goal.properties, None).with_(outputs=old.outputs if old else {})
            step = Step(Op.SAME, urn, new, new)
            self.executor.skip(step)
            self.registrations.made[urn] = step
            self._skipped.add(urn)
            return Registered(urn, old.id if old else "", new.outputs, unknown=old is None)
        steps = [Step(Op.SAME, urn, old, goal.new_state(urn, old.inputs, old))]
        return await self._run_registration(urn, steps)

    def _check_nothing_skipped(self, urn: str, goal: Goal) -> None:
        """Whoever takes part needs everything it depends on."""
        for needed in sorted(self._skipped.intersection(references(goal.new_state(urn, {}, None)))):
            message = f"Resource '{urn}' depends on '{needed}' which was was not specified in --target list."
            if not self._x.dry_run:
                raise self._x.failure(urn, message)
            self._workers.fail(message, urn)  # a preview goes on, so that the user hears of everything at once
            self._skipped.discard(needed)

    async def _run_registration(self, urn: str, steps: Sequence[Step]) -> Registered:
        return self._answer(urn, await self.executor.run_chain(steps))

    def _answer(self, urn: str, made: Step) -> Registered:
        self.registrations.made[urn] = made
        state = made.state
        self._planning.done(urn, state.outputs if state.custom or state.outputs else None)
        return Registered(urn, state.id, state.outputs)

    def plan_steps(self, steps: Sequence[Step]) -> None:
        """Compare operations with the plan, if there is one, before any of them begins.

        Raises:
            StepFailed: one is not allowed; the update stops.
        """
        try:
            self._planning.steps(steps)
        except PlanViolation as err:
            raise self._violation(err) from err

    def _plan_goal(self, urn: str, goal: Goal, old: ResourceState | None, inputs: PropertyMap) -> None:
        try:
            self._planning.registering(urn, goal, old, inputs)
        except PlanViolation as err:
            raise self._violation(err) from err

    async def _plan_outputs(self, urn: str, outputs: PropertyMap) -> None:
        old = self.registrations.olds.get(urn)
        try:
            self._planning.registering_outputs(urn, old.outputs if old else {}, outputs)
        except PlanViolation as err:
            raise self._violation(err) from err

    def _violation(self, err: PlanViolation) -> StepFailed:
        self._workers.stop()  # also where the update goes on after errors: this one is the program's
        return self._x.failure(err.urn, str(err))

    async def _identify(self, goal: Goal) -> tuple[Goal, str, ResourceState | None]:
        """The goal with its parent and provider filled in, its URN, and the old state it continues."""
        goal = await self._with_provider(goal)  # first: it is there even if the URN turns out to be taken
        goal, urn = self.registrations.add(goal)
        autonamer = self.check_diff.autonamer
        if autonamer is not None and goal.custom and autonamer.deletes_first(urn):
            goal = replace(goal, delete_before_replace=True)
        return goal, urn, self.registrations.find_old(urn, goal)

    async def _with_provider(self, goal: Goal) -> Goal:
        if not goal.custom:
            return goal
        if not self._x.registry.provides(goal.type):
            urn = self.registrations.urn_of(goal.parent, goal.type, goal.name)
            what = f"package {package_of(goal.type)}" if is_provider_type(goal.type) else f"resource type {goal.type}"
            raise self._x.failure(urn, f"no provider here knows the {what}: {SWITCH_TO_CLI}")
        if is_provider_type(goal.type):
            return goal
        if not goal.provider:
            return replace(
                goal,
                provider=await self._default_providers.reference(goal.plugin or PackageRequest(package_of(goal.type))),
            )
        return goal

    def _needs(self, goal: Goal) -> list[str]:
        provider = [goal.provider.rpartition("::")[0]] if goal.provider else []
        return [goal.parent, *goal.dependencies, *provider]

    async def _diff(self, urn: str, goal: Goal, old: ResourceState, inputs: PropertyMap) -> DiffResult:
        if reason := self._reason_to_replace(urn, goal, old):
            return DiffResult(True, replace_keys=[reason])
        return await self.check_diff.diff(urn, goal, old, inputs)

    def _is_to_be_replaced(self, urn: str, old: ResourceState | None) -> bool:
        return self._selection.replaces(urn) or (old is not None and old.taint)

    def _reason_to_replace(self, urn: str, goal: Goal, old: ResourceState) -> str:
        """Why the resource is replaced whatever a provider says; "" if it is not."""
        if self._is_to_be_replaced(urn, old):
            return "id"
        if any(u in self._replaced for u in goal.replace_with):
            return "replaceWith"
        return "deletedWith" if goal.deleted_with and goal.deleted_with in self._replaced else ""

    async def _generate(
        self, urn: str, goal: Goal, inputs: PropertyMap, old: ResourceState | None, diff: DiffResult | None
    ) -> list[Step]:
        """The chain of steps; one registration at a time, because a replacement condemns others."""
        condemned = self._condemned.pop(old.urn, None) if old is not None else None
        if condemned is not None and diff is not None:  # it was deleted while we asked: its old inputs count no more
            inputs, diff = await self.check_diff.check(urn, goal, None), None
        if condemned is not None:
            self._replaced.add(urn)
        facts = Facts(
            goal,
            goal.new_state(urn, inputs, old),
            old=None if condemned else old,
            diff=diff if diff is not None else DiffResult(False),
            recreating=condemned is not None,
            condemned=condemned.state if condemned else None,
            replaced_keys=condemned.keys if condemned else (),
        )
        dependents: list[Dependent] = []
        if condemned is None and old is not None and not old.external:
            facts, dependents = await self._with_replacement(urn, facts, old)
        try:
            steps = generate_steps(facts, dependents)
        except CannotReplace as err:
            if not self._x.dry_run:
                raise self._x.failure(urn, str(err)) from err
            self._x.failure(urn, str(err))
            self.refused = self.executor.failed = True  # and shown all the same
            steps = generate_steps(facts, dependents, ignore_protect=True)
        self.plan_steps(steps)
        self._condemned.update(
            {d.state.urn: replace(d, state=d.state.with_(pending_replacement=True)) for d in dependents}
        )
        self.executor.deleting.update(s.urn for s in steps if s.pending_replacement)
        return steps

    async def _with_replacement(self, urn: str, facts: Facts, old: ResourceState) -> tuple[Facts, list[Dependent]]:
        """What a replacement needs to know besides: fresh defaults, and who has to go first."""
        diff = effective_diff(facts)
        if not needs_replacement(old, diff, triggered=is_triggered(old, facts.new)):
            return facts, []
        goal = facts.goal
        if goal.import_id:
            self._refuse_to_replace_import(urn, facts, old, diff)
        self._replaced.add(urn)
        if goal.custom:
            facts = replace(facts, new=facts.new.with_(inputs=await self.check_diff.check(urn, goal, None)))
        if not deletes_before_replace(goal, diff):
            return facts, []
        found = await self.check_diff.dependents(urn, old, self._operated | {urn})
        return facts, [d for d in found if d.state.urn not in self._condemned]

    def _refuse_to_replace_import(self, urn: str, facts: Facts, old: ResourceState, diff: DiffResult) -> None:
        """A replacement would have another id than the one the program names."""
        changes = [
            f"{key}: {shown(old.inputs.get(key))} => {shown(facts.new.inputs.get(key))}" for key in diff.replace_keys
        ]
        message = (
            "previously-imported resources that still specify an ID may not be replaced; please remove the `import` "
            "declaration from your program;\n" + "\n".join(changes)
        )
        if not self._x.dry_run:
            raise self._x.failure(urn, message)
        self._x.events.diagnostic("warning", message, urn=urn)

    async def _read(self, goal: Goal, id: str) -> Registered:
        goal, urn, old = await self._identify(goal)
        if not id:
            raise self._x.failure(urn, f"Expected an ID for {urn}")
        new = goal.new_state(urn, goal.properties, old).with_(id=id, external=True, created="", modified="")
        self._operated.add(urn)
        return await self._run_registration(urn, generate_read(new, old))

    async def _set_outputs(self, urn: str, step: Step, outputs: PropertyMap) -> None:
        if urn in self._skipped:
            return
        await self._plan_outputs(urn, outputs)
        self._store_outputs(urn, step, outputs)
        if not step.state.custom:
            await self._x.hooks.after(self.registrations.made[urn])

    def _store_outputs(self, urn: str, step: Step, outputs: PropertyMap) -> None:
        before = step.state
        after = before.with_(outputs=outputs)
        self._x.ledger.outputs(before, after)
        self.registrations.made[urn] = replace(step, new=after)
        self._x.events.outputs(self.registrations.made[urn])
