"""One update in flight: takes what the program registers, fetches Check and Diff, has steps generated and run.

It knows neither gRPC (`monitor.py`) nor the update's phases (`update.py`). Source: pulumi `deployment_executor.go`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from engine.deploy.assets import AssetError, has_assets, with_hashes
from engine.deploy.dependents import dependents_to_replace
from engine.deploy.diff import apply_ignore_changes, diff_inputs
from engine.deploy.goal import Goal, alias_urns
from engine.deploy.graph import references
from engine.deploy.policy_config import PolicyError, PolicyReviewer
from engine.deploy.property import (
    UNKNOWN_VALUE,
    PropertyMap,
    PropertyValue,
    ResourceReference,
    Secret,
    contains_secret,
    contains_unknown,
)
from engine.deploy.provider import CallingProvider, CallResult, CheckFailure, CheckResult, DiffResult, ProviderError
from engine.deploy.registry import SWITCH_TO_CLI, ask_diff, own_config
from engine.deploy.resource import ResourceState
from engine.deploy.secret_outputs import annotate
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
from engine.deploy.urn import (
    PROVIDER_TYPE_PREFIX,
    ROOT_STACK_TYPE,
    default_provider_name,
    is_provider_type,
    make_reference,
    make_urn,
    package_of,
    urn_name,
)
from engine.model.errors import StaleLease
from engine.model.ids import random_hex

_T = TypeVar("_T")
# A function, not a coroutine: a task that is cancelled before it starts must leave nothing unawaited.
Work = Callable[[], Coroutine[Any, Any, _T]]


class UpdateStopped(Exception):
    """The update takes no more requests: a step failed, or somebody cancelled."""


class Refused(Exception):
    """A request that cannot be met; the message names what and says what to do."""


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


@dataclass(frozen=True)
class Names:
    """Whose resources these are, and the stack configuration default providers are made from."""

    project: str
    stack: str
    config: Mapping[str, str]
    secret_keys: frozenset[str]
    directory: Path = Path()

    def denies_default_provider(self, package: str) -> bool:
        """Whether `pulumi:disable-default-providers` names the package, or all with `*`."""
        denied = json.loads(self.config.get("pulumi:disable-default-providers", "[]"))
        return package != "pulumi" and ("*" in denied or package in denied)

    def package_config(self, package: str) -> PropertyMap:
        """The inputs of a package's default provider: its keys of the configuration."""
        prefix = f"{package}:"
        return {
            key.removeprefix(prefix): Secret(value) if key in self.secret_keys else value
            for key, value in self.config.items()
            if key.startswith(prefix)
        }


class Deployment:
    """The state of one update, on the engine's event loop; called by the monitor and the update."""

    def __init__(
        self,
        names: Names,
        execution: Execution,
        selection: Selection,
        *,
        parallel: int,
        continue_on_error: bool,
        destroying: bool = False,
    ) -> None:
        """`destroying`: the program runs only for its providers and hooks; nothing else is made or changed."""
        self._names = names
        self._selection = selection
        self._x = execution
        self._continue_on_error = continue_on_error
        self._destroying = destroying
        self.executor = StepExecutor(execution, parallel)
        self._generating = asyncio.Lock()
        self._default_providers: dict[tuple[str, str], asyncio.Task[str]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._olds: dict[str, ResourceState] = {}
        self._olds_in_order: list[ResourceState] = []
        self._made: dict[str, Step] = {}
        self.policies: PolicyReviewer | None = None
        self._seen: set[str] = set()
        self._operated: set[str] = set()
        self._replaced: set[str] = set()
        self._condemned: dict[str, Dependent] = {}
        self._lost: set[str] = set()
        self._skipped: set[str] = set()
        self._aliases: dict[str, list[str]] = {}
        self._claimed: dict[str, str] = {}  # former URN → who took it over by an alias
        self._root = ""
        self._stack_outputs: PropertyMap | None = None
        self.failed = False
        self.stopping = asyncio.Event()
        self.stale: StaleLease | None = None

    def start(self) -> None:
        """Take the resources as they are now for the old state of everything to come."""
        self._olds_in_order = list(self._x.ledger.snapshot().resources)
        self._olds = {s.urn: s for s in self._olds_in_order if not s.delete}

    @property
    def registered(self) -> set[str]:
        """URNs the program registered or read, and former URNs of those it renamed."""
        former = {step.old.urn for step in self._made.values() if step.old is not None}
        return self._seen | former

    # -- what the program asks ---------------------------------------------------------------------------------------

    async def register(self, goal: Goal) -> Registered:
        """Make the goal real.

        Raises:
            UpdateStopped: this update takes no more registrations, or this one failed.
        """
        return await self._guarded(partial(self._register, goal))

    async def read(self, goal: Goal, id: str) -> Registered:
        """Read an existing resource into the stack without managing it."""
        return await self._guarded(partial(self._read, goal, id))

    async def register_outputs(self, urn: str, outputs: PropertyMap) -> None:
        """Take a component's outputs; the root stack's wait for the end of the update."""
        self._check_running()
        step = self._made.get(urn)
        if step is None or step.new is None:
            raise Refused(f"cannot register outputs of {urn}: it was not registered")
        if step.new.type == ROOT_STACK_TYPE:
            self._stack_outputs = outputs
            return
        await self._guarded(partial(self._set_outputs, urn, step, outputs))

    async def invoke(self, token: str, args: PropertyMap, reference: str, version: str) -> PropertyMap:
        """Call a provider's function.

        Raises:
            ProviderError: the function failed.
        """
        return await self._guarded(partial(self._invoke, token, args, reference, version))

    async def call(
        self, token: str, args: PropertyMap, dependencies: Mapping[str, Sequence[str]], reference: str, version: str
    ) -> CallResult:
        """Call a method of a resource.

        Raises:
            ProviderError: the method failed.
        """
        return await self._guarded(partial(self._call, token, args, dependencies, reference, version))

    def state_of(self, urn: str) -> ResourceState | None:
        """The state of a resource registered in this update."""
        step = self._made.get(urn)
        return step.new if step else None

    # -- what the update asks ----------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Take no more requests; what runs may finish."""
        self.stopping.set()

    @property
    def stopped(self) -> bool:
        """Whether requests are turned away."""
        return self.stopping.is_set()

    def fail(self, message: str, urn: str = "") -> None:
        """Report an error that is nobody's step."""
        self.failed = True
        self._x.events.diagnostic("error", message, urn=urn)

    async def wait_for_running(self) -> None:
        """Return once nothing runs any more."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    def abort_running(self) -> None:
        """Abandon what runs: begun effects stay pending operations."""
        for task in self._tasks:
            task.cancel()

    def run(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Start work the update waits for before it ends."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # taken, because a program that gave up its call never asks for it

    async def run_all(self, works: Sequence[Work[Any]]) -> None:
        """Run work nobody waits for an answer of, in parallel; failures are remembered, not raised."""
        await asyncio.gather(*(self.run(self._remembering(work)) for work in works), return_exceptions=True)

    async def _remembering(self, work: Work[Any]) -> None:
        try:
            await work()
        except StepFailed:
            self.failed = True
        except StaleLease as err:
            self._lose_lease(err)
        except Exception as err:  # noqa: BLE001 - the same, where nobody waits for an answer
            self.fail(f"{type(err).__name__}: {err}")

    def finalize_stack_outputs(self, *, succeeded: bool) -> PropertyMap:
        """Store the root stack's outputs; after a failure old outputs nobody replaced stay."""
        step = self._made.get(self._root)
        if step is None or step.new is None:
            return {}
        if self._stack_outputs is not None:
            outputs = self._stack_outputs
            if not succeeded and step.old is not None:
                outputs = {**step.old.outputs, **outputs}
            self._store_outputs(self._root, step, outputs)
        state = self.state_of(self._root)
        return state.outputs if state else {}

    # -- registration ------------------------------------------------------------------------------------------------

    async def _guarded(self, work: Work[_T]) -> _T:
        self._check_running()
        # Shielded: a program that gives up a call must not interrupt the effect behind it.
        return await asyncio.shield(self.run(self._reporting(work)))

    async def _reporting(self, work: Work[_T]) -> _T:
        try:
            return await work()
        except StaleLease as err:
            self._lose_lease(err)
            raise UpdateStopped(err.message) from err
        except (StepFailed, asyncio.CancelledError) as err:
            self.failed = True
            self.stop()
            raise UpdateStopped("the update has failed") from err
        except (UpdateStopped, Refused, ProviderError):
            raise
        except Exception as err:  # a provider's bug must end the update with its words, not the engine
            self.fail(f"{type(err).__name__}: {err}")
            self.stop()
            raise UpdateStopped("the update has failed") from err

    def _lose_lease(self, err: StaleLease) -> None:
        self.stale = self.stale or err
        self.failed = True
        self.stop()
        self.abort_running()

    def _check_running(self) -> None:
        if self.stopped:
            raise UpdateStopped("resource monitor shut down")

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
            self.failed = True
            self._lost.add(urn)
            return Registered(urn, "", {}, succeeded=False)

    async def _hashed(self, goal: Goal) -> PropertyMap:
        try:
            hashed: PropertyMap = await asyncio.to_thread(with_hashes, goal.properties, self._names.directory)
        except AssetError as err:
            raise self._error("", f"{goal.type} resource '{goal.name}': {err}") from err
        return hashed

    async def _realise(self, urn: str, goal: Goal, old: ResourceState | None) -> Registered:
        if self._destroying and self._is_left_for_deletion(urn, goal):
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
        inputs = await self._check(urn, goal, None if self._selection.replaces(urn) else comparable)
        diff = await self._diff(urn, goal, comparable, inputs) if comparable else None
        async with self._generating:
            self._check_running()
            steps = await self._generate(urn, goal, inputs, old, diff)
            self._operated.add(urn)
        if imported is not None and steps[0].op is Op.SAME:
            return self._answer(urn, imported)
        return await self._run_registration(urn, steps)

    async def _import(self, urn: str, goal: Goal, old: ResourceState | None) -> Step:
        async with self._generating:
            self._check_running()
            condemned = self._condemned.pop(old.urn, None) if old is not None else None
            self._operated.add(urn)
        before = condemned.state if condemned else old
        new = goal.new_state(urn, {}, None)
        steps = generate_import(new, before, recreating=condemned is not None)
        return replace(await self.executor.run_chain(steps), old=before)

    async def _leave_alone(self, urn: str, goal: Goal, old: ResourceState | None) -> Registered:
        """What the update's targets leave out stays as it is; what does not exist is not made."""
        if old is None:
            new = goal.new_state(urn, goal.properties, None)
            step = Step(Op.SAME, urn, new, new)
            self.executor.skip(step)
            self._made[urn] = step
            self._skipped.add(urn)
            return Registered(urn, "", {}, unknown=True)
        if old.custom and old.provider and not self._x.registry.is_active(old.provider):
            raise self._error(
                urn,
                f"provider {old.provider} for resource {urn} has not been registered yet, this is due to a change of "
                "providers mixed with --target. Change your program back to the original providers",
            )
        self._seen.add(old.urn)
        self._operated.add(urn)
        made = await self.executor.run_chain([Step(Op.SAME, old.urn, old, old)])
        self._made[urn] = self._made[old.urn] = made
        return Registered(old.urn, old.id, old.outputs)

    def _is_left_for_deletion(self, urn: str, goal: Goal) -> bool:
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
            self._made[urn] = step
            self._skipped.add(urn)
            return Registered(urn, old.id if old else "", new.outputs, unknown=old is None)
        steps = [Step(Op.SAME, urn, old, goal.new_state(urn, old.inputs, old))]
        return await self._run_registration(urn, steps)

    def _check_nothing_skipped(self, urn: str, goal: Goal) -> None:
        """Whoever takes part needs everything it depends on."""
        for needed in sorted(self._skipped.intersection(references(goal.new_state(urn, {}, None)))):
            message = f"Resource '{urn}' depends on '{needed}' which was was not specified in --target list."
            if not self._x.dry_run:
                raise self._error(urn, message)
            self.fail(message, urn)  # a preview goes on, so that the user hears of everything at once
            self._skipped.discard(needed)

    async def _run_registration(self, urn: str, steps: Sequence[Step]) -> Registered:
        return self._answer(urn, await self.executor.run_chain(steps))

    def _answer(self, urn: str, made: Step) -> Registered:
        self._made[urn] = made
        state = made.state
        return Registered(urn, state.id, state.outputs)

    async def _identify(self, goal: Goal) -> tuple[Goal, str, ResourceState | None]:
        """The goal with its parent and provider filled in, its URN, and the old state it continues."""
        goal = self._with_parent(goal)
        urn = make_urn(self._names.stack, self._names.project, goal.parent, goal.type, goal.name)
        if urn in self._seen:
            raise self._error(urn, f"Duplicate resource URN '{urn}'; try giving it a unique name")
        self._seen.add(urn)
        if goal.type == ROOT_STACK_TYPE:
            self._root = urn
        return await self._with_provider(urn, goal), urn, self._find_old(urn, goal)

    def _with_parent(self, goal: Goal) -> Goal:
        if goal.parent:
            if goal.parent not in self._seen:
                raise self._error("", f"could not find parent resource {goal.parent}")
            return goal
        default = is_provider_type(goal.type) and goal.name.startswith("default") and not goal.parent
        return goal if default or not self._root else replace(goal, parent=self._root)

    async def _with_provider(self, urn: str, goal: Goal) -> Goal:
        if not goal.custom:
            return goal
        if not self._x.registry.provides(goal.type):
            what = f"package {package_of(goal.type)}" if is_provider_type(goal.type) else f"resource type {goal.type}"
            raise self._error(urn, f"no provider here knows the {what}: {SWITCH_TO_CLI}")
        if is_provider_type(goal.type):
            version = {"version": goal.version} if goal.version else {}
            return replace(goal, properties={**goal.properties, **version})
        if not goal.provider:
            return replace(goal, provider=await self._default_provider(package_of(goal.type), goal.version))
        return goal

    async def _default_provider(self, package: str, version: str) -> str:
        if self._names.denies_default_provider(package):
            raise self._error("", f"Default provider for '{package}' disabled: its resources need an explicit provider")
        key = (package, version)
        if key not in self._default_providers:
            self._default_providers[key] = self.run(self._make_default_provider(package, version))
        return await asyncio.shield(self._default_providers[key])

    async def _make_default_provider(self, package: str, version: str) -> str:
        goal = Goal(
            type=f"{PROVIDER_TYPE_PREFIX}{package}",
            name=default_provider_name(version),
            custom=True,
            properties=self._names.package_config(package),
            version=version,
        )
        made = await self._register(goal)
        return make_reference(made.urn, made.id)

    def _find_old(self, urn: str, goal: Goal) -> ResourceState | None:
        parent_aliases = self._aliases.get(goal.parent, [])
        former = alias_urns(goal, self._names.stack, self._names.project, parent_aliases)
        self._aliases[urn] = former
        if urn in self._claimed:
            raise self._error(
                urn,
                f"Duplicate resource URN '{urn}' conflicting with alias on resource with URN '{self._claimed[urn]}'",
            )
        for candidate in (urn, *former):
            old = self._olds.get(candidate)
            if old is not None and (candidate == urn or candidate not in self._seen | self._claimed.keys()):
                if candidate != urn:
                    self._claimed[candidate] = urn
                return old
        return None

    def _needs(self, goal: Goal) -> list[str]:
        provider = [goal.provider.rpartition("::")[0]] if goal.provider else []
        return [goal.parent, *goal.dependencies, *provider]

    async def _check(self, urn: str, goal: Goal, old: ResourceState | None) -> PropertyMap:
        news = goal.properties
        if old is not None and goal.ignore_changes:
            news = apply_ignore_changes(old.inputs, news, goal.ignore_changes)
        if not goal.custom:
            return await self._reviewed(urn, goal, news)
        olds = old.inputs if old is not None else {}
        result = await self._asking(urn, self._provider_check(urn, goal, olds, news))
        if result.failures:
            self._report_check_failures(urn, goal, news, result.failures)
            raise StepFailed(f"resource {urn} has check errors")
        return await self._reviewed(urn, goal, annotate(result.inputs, news))

    async def _reviewed(self, urn: str, goal: Goal, inputs: PropertyMap) -> PropertyMap:
        """The inputs as the policy packs want them; a preview tells of violations and goes on."""
        if self.policies is None:
            return inputs
        provider = self.state_of(goal.provider.rpartition("::")[0]) if goal.provider else None
        try:
            inputs, allowed = await self.policies.review(urn, goal, inputs, provider)
        except PolicyError as err:
            raise self._error(urn, str(err)) from err
        if not allowed and not self._x.dry_run:
            raise StepFailed(f"resource {urn} violates a mandatory policy")
        return inputs

    async def _provider_check(self, urn: str, goal: Goal, olds: PropertyMap, news: PropertyMap) -> CheckResult:
        if is_provider_type(goal.type):
            return await self._x.registry.check(urn, goal.type, olds, news)
        provider = await self._x.registry.get(goal.provider)
        return await provider.check(urn, goal.type, olds, news, bytes.fromhex(random_hex(64)))

    def _report_check_failures(self, urn: str, goal: Goal, news: PropertyMap, failures: Sequence[CheckFailure]) -> None:
        for failure in failures:
            subject = f"{goal.type} resource '{urn_name(urn)}'"
            if failure.property:
                text = _shown(news.get(failure.property))
                what = f"{subject}: property {failure.property} value {{{text}}} has a problem: {failure.reason}"
            else:
                what = f"{subject} has a problem: {failure.reason}"
            self._x.events.diagnostic("error", what, urn=urn)

    async def _diff(self, urn: str, goal: Goal, old: ResourceState, inputs: PropertyMap) -> DiffResult:
        if reason := self._reason_to_replace(urn, goal):
            return DiffResult(True, replace_keys=[reason])
        if not goal.custom or not old.custom:
            if goal.custom != old.custom:
                return DiffResult(True, replace_keys=["provider"])
            return diff_inputs(old.inputs, inputs)
        if not self._x.dry_run and contains_unknown(goal.replacement_trigger):
            raise self._error(urn, f"replacement trigger contains unknowns for {urn}")
        if is_triggered(old, goal.new_state(urn, inputs, old)):
            return DiffResult(True)
        return await self._asking(urn, self._provider_diff(urn, goal, old, inputs))

    def _reason_to_replace(self, urn: str, goal: Goal) -> str:
        """Why the resource is replaced whatever a provider says; "" if it is not."""
        if self._selection.replaces(urn):
            return "id"
        if any(u in self._replaced for u in goal.replace_with):
            return "replaceWith"
        return "deletedWith" if goal.deleted_with and goal.deleted_with in self._replaced else ""

    async def _provider_diff(self, urn: str, goal: Goal, old: ResourceState, inputs: PropertyMap) -> DiffResult:
        if is_provider_type(goal.type):
            return await self._x.registry.diff(urn, old, inputs)
        if await self._provider_changed(goal, old):
            return DiffResult(True, replace_keys=["provider"])
        provider = await self._x.registry.get(goal.provider)
        return await ask_diff(provider, urn, old, inputs, goal.ignore_changes)

    async def _provider_changed(self, goal: Goal, old: ResourceState) -> bool:
        """Whether the resource's provider became another one whose configuration reaches other resources."""
        if old.provider == goal.provider:
            return False
        if not old.provider:
            return True
        old_urn, new_urn = old.provider.rpartition("::")[0], goal.provider.rpartition("::")[0]
        before, after = self._olds.get(old_urn), self.state_of(new_urn)
        if before is None or after is None:
            return False
        if after.urn != old_urn and before is self._former(after.urn):
            return False  # the same provider under a new name
        provider = await self._x.registry.get(goal.provider)
        result = await provider.diff_config(new_urn, own_config(before.inputs), own_config(after.inputs))
        return bool(result.replace_keys)

    def _former(self, urn: str) -> ResourceState | None:
        step = self._made.get(urn)
        return step.old if step else None

    async def _generate(
        self, urn: str, goal: Goal, inputs: PropertyMap, old: ResourceState | None, diff: DiffResult | None
    ) -> list[Step]:
        """The chain of steps; one registration at a time, because a replacement condemns others."""
        condemned = self._condemned.pop(old.urn, None) if old is not None else None
        if condemned is not None and diff is not None:  # it was deleted while we asked: its old inputs count no more
            inputs, diff = await self._check(urn, goal, None), None
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
            raise self._error(urn, str(err)) from err
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
            facts = replace(facts, new=facts.new.with_(inputs=await self._check(urn, goal, None)))
        if not deletes_before_replace(goal, diff):
            return facts, []
        found = await self._asking(
            urn, dependents_to_replace(self._x.registry, self._olds_in_order, old, self._operated | {urn})
        )
        return facts, [d for d in found if d.state.urn not in self._condemned]

    def _refuse_to_replace_import(self, urn: str, facts: Facts, old: ResourceState, diff: DiffResult) -> None:
        """A replacement would have another id than the one the program names."""
        changes = [
            f"{key}: {_shown(old.inputs.get(key))} => {_shown(facts.new.inputs.get(key))}" for key in diff.replace_keys
        ]
        message = (
            "previously-imported resources that still specify an ID may not be replaced; please remove the `import` "
            "declaration from your program;\n" + "\n".join(changes)
        )
        if not self._x.dry_run:
            raise self._error(urn, message)
        self._x.events.diagnostic("warning", message, urn=urn)

    # -- reads, outputs, invokes -------------------------------------------------------------------------------------

    async def _read(self, goal: Goal, id: str) -> Registered:
        goal, urn, old = await self._identify(goal)
        if not id:
            raise self._error(urn, f"Expected an ID for {urn}")
        new = goal.new_state(urn, goal.properties, old).with_(id=id, external=True, created="", modified="")
        self._operated.add(urn)
        return await self._run_registration(urn, generate_read(new, old))

    async def _set_outputs(self, urn: str, step: Step, outputs: PropertyMap) -> None:
        if urn in self._skipped:
            return
        self._store_outputs(urn, step, outputs)
        if not step.state.custom:
            await self._x.hooks.after(self._made[urn])

    def _store_outputs(self, urn: str, step: Step, outputs: PropertyMap) -> None:
        before = step.state
        after = before.with_(outputs=outputs)
        self._x.ledger.outputs(before, after)
        self._made[urn] = replace(step, new=after)
        self._x.events.outputs(self._made[urn])

    async def _invoke(self, token: str, args: PropertyMap, reference: str, version: str) -> PropertyMap:
        package = package_of(token)
        if not self._x.registry.provides(f"{PROVIDER_TYPE_PREFIX}{package}"):
            raise Refused(f"no provider here knows the function {token}: {SWITCH_TO_CLI}")
        reference = reference or await self._default_provider(package, version)
        provider = await self._x.registry.get(reference)
        return await provider.invoke(token, args)

    async def _call(
        self, token: str, args: PropertyMap, dependencies: Mapping[str, Sequence[str]], reference: str, version: str
    ) -> CallResult:
        reference = reference or self._provider_of_self(token, args.get("__self__"))
        package = package_of(token)
        if not reference and not self._x.registry.provides(f"{PROVIDER_TYPE_PREFIX}{package}"):
            raise Refused(f"no provider here knows the method {token}: {SWITCH_TO_CLI}")
        provider = await self._x.registry.get(reference or await self._default_provider(package, version))
        if not isinstance(provider, CallingProvider):
            raise Refused(f"the provider {package} here has no methods, so not {token}: {SWITCH_TO_CLI}")
        return await provider.call(token, args, dependencies, self._x.dry_run)

    def _provider_of_self(self, token: str, receiver: PropertyValue) -> str:
        """Who answers a method: the receiver itself where it is a provider, the receiver's provider otherwise."""
        if not isinstance(receiver, ResourceReference):
            return ""
        if is_provider_type(token):
            return make_reference(receiver.urn, str(receiver.id or UNKNOWN_VALUE))
        state = self.state_of(receiver.urn)
        if state is None:
            raise Refused(f"unknown resource {receiver.urn}")
        return state.provider

    # -- errors ------------------------------------------------------------------------------------------------------

    async def _asking(self, urn: str, work: Coroutine[Any, Any, _T]) -> _T:
        """Await a provider's answer; its error is this resource's."""
        try:
            return await work
        except ProviderError as err:
            raise self._error(urn, str(err)) from err

    def _error(self, urn: str, message: str) -> StepFailed:
        self._x.events.diagnostic("error", message, urn=urn)
        return StepFailed(message)


def _shown(value: PropertyValue) -> str:
    return "[secret]" if contains_secret(value) else str(value)
