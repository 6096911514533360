"""One update from start to end: settle what an earlier one left, run the program and its steps, delete the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import Any, Protocol

from engine.deploy.autonaming import AutonamingError, read_autonamer
from engine.deploy.builtins import NoStackOutputs, StackOutputsReader, WithBuiltins
from engine.deploy.callbacks import Callbacks
from engine.deploy.deletes import generate_deletes, schedule_deletes
from engine.deploy.deployment import Deployment
from engine.deploy.events import EngineEvents
from engine.deploy.graph import references
from engine.deploy.hooks import Hooks
from engine.deploy.hosting import Hosting
from engine.deploy.journal import Journal
from engine.deploy.ledger import Ledger
from engine.deploy.monitor import MonitorServer
from engine.deploy.plan import Plan
from engine.deploy.planning import Planning
from engine.deploy.policy_config import PolicyError, PolicyReviewer
from engine.deploy.program import PrintingProgram, ProgramBailed, ProgramSource
from engine.deploy.property import PropertyMap
from engine.deploy.provider import Provider
from engine.deploy.refresh import Refresher
from engine.deploy.registry import ProviderRegistry
from engine.deploy.resource import ResourceState
from engine.deploy.settle import CannotSettle, Settler
from engine.deploy.snapshot import Snapshot
from engine.deploy.step import Op, Step
from engine.deploy.step_executor import Execution, StepFailed
from engine.deploy.targets import Narrowing, Selection
from engine.deploy.transforms import Transforms
from engine.deploy.update_target import UpdateTarget
from engine.deploy.urn import ROOT_STACK_TYPE
from engine.deploy.worker_pool import WorkerPool
from engine.model.clock import Clock
from engine.model.errors import StaleLease
from engine.model.fence import Fence

_WIND_UP_SECONDS = 5.0  # a program that is turned away ends at its next call; one that makes none is not waited for
_CANCELLATION_POLL_SECONDS = 0.05  # the protocol can only be asked; a user notices nothing below a tenth of a second


class UpdateMode(StrEnum):
    """What an update is for."""

    PREVIEW = "preview"
    UP = "up"
    REFRESH = "refresh"
    DESTROY = "destroy"


UNEXPECTED_CHANGES = "no changes were expected"
_OPERATIONS = {
    UpdateMode.PREVIEW: "preview",
    UpdateMode.UP: "update",
    UpdateMode.REFRESH: "refresh",
    UpdateMode.DESTROY: "destroy",
}


@dataclass(frozen=True)
class UpdateOptions:
    """The flags of one update. Flags that are not here are refused by name in `command/`.

    Attributes:
        targets, excludes: URNs, `*` and `**` stand for parts of one; only what matches, or what does not, is touched.
        replace_targets: URNs of resources to replace though nothing differs; narrows nothing.
        target_dependents, exclude_dependents: also what depends on the targets, or on the excluded.
        dry_run: only say what would be done, as every preview does; so for a refresh or a destroy.
        run_program: with `refresh`: read resources as the program registers them, with the providers it configures.
        plan: what the update may do, as an earlier preview made it; whatever is not in it fails.
        generate_plan: whether the result is to have such a plan.
    """

    mode: UpdateMode
    parallel: int = 16
    continue_on_error: bool = False
    refresh: bool = False
    expect_no_changes: bool = False
    targets: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    replace_targets: tuple[str, ...] = ()
    target_dependents: bool = False
    exclude_dependents: bool = False
    dry_run: bool = False
    run_program: bool = False
    plan: Plan | None = None
    generate_plan: bool = False

    def narrowing(self) -> Narrowing:
        """The flags that say which resources take part."""
        return Narrowing(
            self.targets, self.excludes, self.replace_targets, self.target_dependents, self.exclude_dependents
        )


class ProviderSource(Protocol):
    """Where providers come from."""

    def provides(self, package: str, type_: str) -> bool:
        """Whether `type_` (or, for "", anything of the package) is known."""
        ...

    async def load(self, package: str, version: str) -> Provider:
        """A new, unconfigured provider.

        Raises:
            ProviderError: nobody provides this package; the message names it and says how to switch to the CLI.
        """
        ...


class EventSink(Protocol):
    """Takes engine events in the JSON shape of `apitype.EngineEvent` (camelCase names, as in `--event-log`)."""

    def emit(self, event: dict[str, Any]) -> None: ...


class Cancellation(Protocol):
    """Asked between steps: 0 = go on, 1 = finish running steps and save, 2 = stop now."""

    @property
    def level(self) -> int: ...


@dataclass(frozen=True)
class UpdateResult:
    """How an update ended. `snapshot` is what to store, also after a failure."""

    snapshot: Snapshot
    resource_changes: Mapping[str, int]
    succeeded: bool
    message: str
    diagnostics: Sequence[str] = ()
    outputs: PropertyMap = field(default_factory=dict)
    plan: Plan | None = None


async def run_update(
    target: UpdateTarget,
    options: UpdateOptions,
    *,
    base: Snapshot,
    source: ProgramSource | None,
    providers: ProviderSource,
    journal: Journal,
    events: EventSink,
    fence: Fence,
    clock: Clock,
    cancellation: Cancellation,
    stacks: StackOutputsReader | None = None,
    policies: PolicyReviewer | None = None,
) -> UpdateResult:
    """Run one update. Never raises for the program's or a provider's failures: those are in the result.

    Args:
        stacks: where stack references read other stacks; without it they are refused.
        policies: the policy packs that previews and updates are shown to.

    Raises:
        StaleLease: the lease was lost; nothing more was written.
    """
    providers = WithBuiltins(providers, stacks or NoStackOutputs())
    update = _Update(target, options, base, providers, journal, events, fence, clock, cancellation)
    update.review_with(policies)
    return await update.run(source)


class _Update:
    """The phases of one update, in order."""

    def __init__(
        self,
        target: UpdateTarget,
        options: UpdateOptions,
        base: Snapshot,
        providers: ProviderSource,
        journal: Journal,
        events: EventSink,
        fence: Fence,
        clock: Clock,
        cancellation: Cancellation,
    ) -> None:
        self._target = target
        self._options = options
        self._base = base
        self._cancellation = cancellation
        self._dry_run = options.dry_run or options.mode is UpdateMode.PREVIEW
        self._events = EngineEvents(events, clock, planning=self._dry_run)
        self._ledger = Ledger(base, journal, fence, dry_run=self._dry_run)
        self._hosting = Hosting(target, self._events, self._dry_run, options.parallel)
        self._registry = ProviderRegistry(providers, base.resources, self._hosting)
        self._callbacks = Callbacks()
        self._hooks = Hooks(self._callbacks, self._events, dry_run=self._dry_run)
        execution = Execution(self._ledger, self._registry, self._events, fence, clock, self._dry_run, self._hooks)
        self._workers = WorkerPool(self._events)
        self._selection = Selection(options.narrowing())
        self._planning = Planning(options.plan, generating=options.generate_plan)
        self._deployment = Deployment(
            target,
            execution,
            self._selection,
            self._workers,
            parallel=options.parallel,
            continue_on_error=options.continue_on_error,
            planning=self._planning,
            destroying=options.mode is UpdateMode.DESTROY,
        )
        self._refresher = Refresher(
            execution, self._deployment.executor, options.parallel, counting=options.mode is UpdateMode.REFRESH
        )
        self._program_failed = False
        self._cancelled = False

    def review_with(self, policies: PolicyReviewer | None) -> None:
        """Have policy packs look at what the program registers."""
        self._policies = self._deployment.check_diff.policies = policies

    async def run(self, source: ProgramSource | None) -> UpdateResult:
        self._events.prelude(self._target.config, self._target.secret_keys)
        watch = asyncio.ensure_future(self._watch_cancellation())
        try:
            await self._phases(source)
        except StaleLease as err:
            self._workers.stale = self._workers.stale or err
        except asyncio.CancelledError:
            self._workers.abort_running()
            if not self._cancelled:
                raise  # whoever awaits this update gave it up
        finally:
            watch.cancel()
            await self._workers.wait_for_running()
            await self._callbacks.close()
            await self._registry.close()
            if self._policies is not None:
                await self._policies.close()
        if self._workers.stale is not None:
            raise self._workers.stale
        return self._finish()

    async def _phases(self, source: ProgramSource | None) -> None:
        if not self._read_autonaming():
            return
        if not await self._settle():
            return
        self._deployment.registrations.start()
        refreshing = self._options.mode is UpdateMode.REFRESH
        if source is not None and (refreshing or (self._options.refresh and self._options.run_program)):
            self._deployment.refresher, self._deployment.refreshing_only = self._refresher, refreshing
        elif self._options.refresh or refreshing:
            await self._refresh(self._ledger.snapshot().resources)
        else:
            await self._refresh([s for s in self._base.resources if s.refresh_before_update])
        if (refreshing and source is None) or not self._going_on:
            return
        if self._report(self._selection.missing_replace_targets(self._known())):
            return
        if source is None:
            await self._delete()
        elif await self._start_policies():
            await self._run_program(source)
            self._miss_planned()
            await self._review_stack()

    def _read_autonaming(self) -> bool:
        if self._options.mode not in (UpdateMode.UP, UpdateMode.PREVIEW):
            return True
        try:
            self._deployment.check_diff.autonamer = read_autonamer(self._target)
        except AutonamingError as err:
            self._workers.fail(f"getting autonaming config: {err}")
            return False
        return True

    @property
    def _going_on(self) -> bool:
        return not self._workers.stopped and (not self._workers.failed or self._options.continue_on_error)

    async def _settle(self) -> bool:
        if not self._base.pending_operations:
            return True
        if self._dry_run:
            for operation in self._base.pending_operations:
                self._events.diagnostic(
                    "warning",
                    f"an earlier update was interrupted while {operation.type} {operation.resource.urn}: the next "
                    "update will ask its provider what became of it",
                    urn=operation.resource.urn,
                )
            return True
        try:
            settler = Settler(self._base, self._ledger, self._registry, self._refresher)
            for sentence in await self._workers.run(settler.settle()):
                self._events.diagnostic("info", sentence)
        except CannotSettle as err:
            self._workers.fail(str(err))
            return False
        return True

    async def _refresh(self, candidates: Sequence[ResourceState]) -> None:
        if not candidates:
            return
        known = self._known()
        missing = [*self._selection.missing_targets(known), *self._selection.missing_excludes(known)]
        # Where nobody asked for a refresh, a target may still be one that the program is about to declare.
        asked_for = self._options.refresh or self._options.mode is UpdateMode.REFRESH
        if asked_for and self._report(missing):
            return
        chosen = {s.urn for s in self._selection.refreshable(self._ledger.snapshot().resources)}
        resources = [s for s in candidates if s.urn in chosen]
        await self._workers.run_all([partial(self._refresh_one, s) for s in resources])
        self._deployment.registrations.start()

    async def _refresh_the_rest(self) -> None:
        """Refresh what the program did not register."""
        registered = self._deployment.registrations.registered
        await self._refresh([s for s in self._ledger.snapshot().resources if s.urn not in registered or s.delete])

    def _known(self) -> set[str]:
        """Every URN of the stack and of the program so far."""
        return {s.urn for s in self._base.resources} | self._deployment.registrations.registered

    def _report(self, sentences: Sequence[str]) -> bool:
        for sentence in sentences:
            self._workers.fail(sentence)
        return bool(sentences)

    async def _refresh_one(self, state: ResourceState) -> None:
        if not self._workers.stopped:
            await self._refresher.refresh(state)

    async def _run_program(self, source: ProgramSource) -> None:
        server = MonitorServer(self._deployment, self._workers, self._events, Transforms(self._callbacks), self._hooks)
        await server.start()
        self._hosting.monitor_address = server.address
        if isinstance(source, PrintingProgram):
            source.listen(lambda severity, line, stream: self._events.diagnostic(severity, line, stream_id=stream))
        running = asyncio.ensure_future(
            source.run(
                monitor_address=server.address,
                engine_address=server.address,
                target=self._target,
                dry_run=self._dry_run,
                parallel=self._options.parallel,
            )
        )
        try:
            await self._program_registered(running, server)
            if self._going_on and not self._program_failed:
                await (self._refresh_the_rest() if self._options.mode is UpdateMode.REFRESH else self._delete())
            server.let_program_end()
            self._take_program_error(await self._program_end(source, running))
        except ProgramBailed:
            self._program_failed = self._workers.failed = True
        finally:
            server.let_program_end()
            running.cancel()
            await server.stop()

    async def _program_registered(self, running: asyncio.Future[str], server: MonitorServer) -> None:
        """Wait until the program has registered all it wants, or is turned away.

        It stays until the end of the update, for the hooks of what is deleted.
        """
        events = [asyncio.ensure_future(e.wait()) for e in (self._workers.stopping, server.all_registered)]
        any_of_them: set[asyncio.Future[Any]] = {running, *events}
        await asyncio.wait(any_of_them, return_when=asyncio.FIRST_COMPLETED)
        for event in events:
            event.cancel()
        if running.done():
            self._take_program_error(running.result())
        await self._workers.wait_for_running()

    def _take_program_error(self, error: str) -> None:
        if error and not self._workers.stopped and not self._program_failed:
            self._program_failed = True
            self._workers.fail(f"an unhandled error occurred: {error}")

    def _miss_planned(self) -> None:
        """Say which operations of the plan never came; after a failure nobody knows whether they would have."""
        if self._going_on and not self._program_failed:
            for urn, sentence in self._planning.missing({s.urn for s in self._base.resources}):
                self._workers.fail(sentence, urn)

    async def _start_policies(self) -> bool:
        if self._policies is None:
            return True
        try:
            await self._policies.start(self._events, dry_run=self._dry_run)
        except PolicyError as err:
            self._workers.fail(str(err))
            return False
        return True

    async def _review_stack(self) -> None:
        if self._policies is None or not self._going_on or self._program_failed:
            return
        resources = [s for s in self._ledger.snapshot().resources if not s.delete]
        root = next((s.urn for s in resources if s.type == ROOT_STACK_TYPE), "")
        try:
            if not await self._policies.review_stack(resources, root):
                self._deployment.executor.failed = True
        except PolicyError as err:
            self._workers.fail(str(err))

    async def _program_end(self, source: ProgramSource, running: asyncio.Future[str]) -> str:
        """Wait for the program; one that was turned away gets some time to end by itself, then it is abandoned."""
        if not running.done():
            await self._workers.wait_for_running()
            await asyncio.wait({running}, timeout=_WIND_UP_SECONDS)
        if not running.done():
            await source.cancel()
        return await running

    async def _delete(self) -> None:
        missing = self._selection.missing_targets(self._known())
        await self._delete_what_is_left()
        self._report(missing)

    async def _delete_what_is_left(self) -> None:
        resources = self._ledger.snapshot().resources
        deletable = self._selection.deletable(resources)
        kept = set() if self._options.mode is UpdateMode.DESTROY else self._deployment.registrations.registered
        steps = generate_deletes(deletable, kept)
        touched = {s.urn for s in deletable}
        sames = self._kept([s for s in resources if s.urn not in touched]) if self._selection.narrows else []
        try:
            self._deployment.plan_steps([*sames, *steps])
        except StepFailed:
            self._workers.failed = True
            return
        if undeclared := self._selection.undeclared_deletes([s.urn for s in steps]):
            for urn, sentence in undeclared.items():
                self._workers.fail(sentence, urn)
            self._deployment.executor.failed = True
            return
        for same in sames:
            self._deployment.executor.skip(same)
        self._deployment.executor.deleting = {s.urn for s in steps}
        for antichain in schedule_deletes(steps):
            if not self._going_on:
                return
            run_chain = self._deployment.executor.run_chain
            await self._workers.run_all([partial(run_chain, [step]) for step in self._free(antichain)])

    def _kept(self, states: Sequence[ResourceState]) -> list[Step]:
        """Steps that say of what neither the program nor the targets name that it stays."""
        registered = self._deployment.registrations.registered
        return [Step(Op.SAME, s.urn, s, s.with_(id="")) for s in states if s.urn not in registered and not s.delete]

    def _free(self, antichain: Sequence[Step]) -> Sequence[Step]:
        """The steps whose resources nobody needs any more; after a failed delete its dependencies must stay."""
        if not self._workers.failed:
            return antichain
        needed = {urn for state in self._ledger.resources() for urn in references(state)}
        return [step for step in antichain if step.urn not in needed]

    async def _watch_cancellation(self) -> None:
        seen = 0
        while seen < 2:
            await asyncio.sleep(_CANCELLATION_POLL_SECONDS)
            level = min(self._cancellation.level, 2)
            if level > seen and seen == 0:
                self._cancelled = True
                self._workers.stop()
            if level > seen and level == 2:
                self._workers.abort_running()
            seen = max(seen, level)

    def _says_so(self) -> bool:
        """Whether "update failed" is worth saying: not where the one error there is came before any step."""
        shown = self._dry_run and self._policies is not None and self._policies.violated
        return self._deployment.executor.failed or self._hooks.failed or shown

    def _finish(self) -> UpdateResult:
        deployment = self._deployment
        failed = self._workers.failed or self._workers.stopped or self._hooks.failed or deployment.refused
        outputs: PropertyMap = {}
        if self._options.mode is not UpdateMode.DESTROY:
            outputs = deployment.finalize_stack_outputs(succeeded=not failed)
        if self._options.mode is UpdateMode.REFRESH:
            outputs = next((s.outputs for s in self._ledger.resources() if s.type == ROOT_STACK_TYPE), {})
        failed = failed or (self._policies is not None and self._policies.violated)
        changes = dict(sorted(deployment.executor.changes.items()))
        outcome = "canceled" if self._cancelled else "failed" if failed else "succeeded"
        message = ""
        if failed:
            message = f"{'preview' if self._dry_run else 'update'} {'cancelled' if self._cancelled else 'failed'}"
            if self._cancelled or self._says_so():
                self._events.diagnostic("error", message)
        elif self._options.expect_no_changes and set(changes) - {"same"}:
            what = _OPERATIONS[self._options.mode]
            # Said by the command, not among the diagnostics: nothing went wrong in the update.
            failed, message = True, f"{UNEXPECTED_CHANGES} for {what} but changes were proposed"
        self._events.summary(changes, outcome)
        self._events.cancel()
        snapshot = self._base if self._dry_run else self._ledger.snapshot()
        plan = None if failed else self._planning.made
        return UpdateResult(snapshot, changes, not failed, message, tuple(self._events.diagnostics), outputs, plan)
