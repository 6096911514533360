"""Performs steps: asks the fence, writes the journal, calls the provider, tells the events.

It decides nothing; the order of steps in a chain and of antichains was decided before. Source: pulumi
`step_executor.go`, `step.go` (the Apply methods).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from engine.deploy.events import EngineEvents, FailedStatus
from engine.deploy.hooks import HookFailed, Hooks
from engine.deploy.ledger import Ledger
from engine.deploy.property import UNKNOWN_VALUE, PropertyMap
from engine.deploy.provider import PartialFailure, Provider, ProviderError, ReadResult, UpdateResult
from engine.deploy.registry import ProviderRegistry, provider_outputs
from engine.deploy.resource import ResourceState
from engine.deploy.secret_outputs import mark_secrets
from engine.deploy.step import HARMLESS, Op, Step
from engine.deploy.urn import is_default_provider, is_provider_type
from engine.model.clock import Clock
from engine.model.errors import StaleLease
from engine.model.fence import Fence
from engine.model.ids import random_uuid

_DELETES = frozenset({Op.DELETE, Op.DELETE_REPLACED})
_CREATES = frozenset({Op.CREATE, Op.CREATE_REPLACEMENT})
_READS = frozenset({Op.READ, Op.READ_REPLACEMENT})
_T = TypeVar("_T")
_IMPORTS = frozenset({Op.IMPORT, Op.IMPORT_REPLACEMENT})
_REPLACEMENTS = frozenset({Op.CREATE_REPLACEMENT, Op.READ_REPLACEMENT, Op.IMPORT_REPLACEMENT})


class _Refused(ProviderError):
    """The engine itself says no: nothing was asked of a provider, or nothing came of it."""


class StepFailed(Exception):
    """A step failed; what there is to say was said in the events."""


@dataclass(frozen=True)
class Execution:
    """What steps are performed with, and for."""

    ledger: Ledger
    registry: ProviderRegistry
    events: EngineEvents
    fence: Fence
    clock: Clock
    dry_run: bool
    hooks: Hooks

    def failure(self, urn: str, message: str) -> StepFailed:
        """Say what is wrong with a resource; the caller raises the answer."""
        self.events.diagnostic("error", message, urn=urn)
        return StepFailed(message)


class StepExecutor:
    """Runs chains of steps, at most `parallel` at a time."""

    def __init__(self, execution: Execution, parallel: int) -> None:
        self._x = execution
        self._slots = asyncio.Semaphore(max(1, parallel))
        self.changes: Counter[str] = Counter()
        self.deleting: set[str] = set()
        self.steps_done = 0
        self.failed = False

    async def run_chain(self, steps: Sequence[Step]) -> Step:
        """Run steps one after the other; returns the one that made the resource, with its final state.

        Raises:
            StepFailed: a step failed; the rest was not begun.
            StaleLease: the lease is lost; nothing more was written.
        """
        made = steps[-1]
        async with self._slots:
            for step in steps:
                done = await self._run(_after(made, step))
                if step.op is not Op.REPLACE and step.op not in _DELETES:
                    made = done
        return made

    def count(self, op: str, urn: str) -> None:
        """Count a finished step for the summary; providers nobody asked for do not count."""
        if not is_default_provider(urn):
            self.changes[op] += 1

    def skip(self, step: Step) -> None:
        """Show a step nobody performs: what the update's targets leave out."""
        self._x.events.before(step)
        self._finish(replace(step, new=step.old or step.new))

    async def _run(self, step: Step) -> Step:
        x = self._x
        x.events.before(step)
        number: int | None = None
        try:
            if self._has_effect(step):
                number = x.ledger.begin(step.op, step.old, step.new)
                x.fence.check()
            await x.hooks.before(step)
            new = await self._apply(step)
        except ProviderError as err:
            half = self._half_done(step, err) if isinstance(err, PartialFailure) else None
            if half is not None:
                x.ledger.succeed(step.op, number or x.ledger.next_step(), step.old, half.new)
            elif number is not None:
                x.ledger.fail(step.op, number, step.old, step.new)
            raise self._failed(_as_asked(half, step) if half else step, str(err), _status(step, err, half)) from err
        except StaleLease:
            raise
        except Exception as err:  # a provider's bug: how far it got is unknown, so the step stays pending
            raise self._failed(step, f"{type(err).__name__}: {err}", FailedStatus.UNKNOWN) from err
        done = replace(step, new=new)
        x.ledger.succeed(step.op, number if number is not None else x.ledger.next_step(), step.old, new)
        if done.state.custom or done.op in _DELETES:  # a component's run when its outputs are registered
            await x.hooks.after(done)
        self._finish(_with_old_marked(done))
        return done

    def _finish(self, step: Step) -> None:
        self.steps_done += 1
        if self._x.dry_run or step.state.custom or step.op in _DELETES:
            self._x.events.outputs(step)
        if step.logical and _is_news(step):
            self.count(step.name, step.urn)

    def _failed(self, step: Step, message: str, status: FailedStatus) -> StepFailed:
        self.failed = True
        if self._x.dry_run:
            self._x.events.diagnostic("error", f"Preview failed: {message}", urn=step.urn)
            return StepFailed(message)
        self._x.events.diagnostic("error", message, urn=step.urn)
        if step.op is Op.UPDATE and step.old is not None and step.new is not None:
            step = replace(step, new=step.new.with_(id=step.old.id))
        self._x.events.failed(step, status=status, steps_done=self.steps_done)
        return StepFailed(message)

    def _half_done(self, step: Step, err: PartialFailure) -> Step | None:
        """The step as far as it got; None where a half-done step leaves the old state, as a delete does."""
        old, new = step.old, step.new
        if new is None or self._x.dry_run:
            return None
        updated = old if step.op is Op.UPDATE else None
        created = updated.created if updated else self._now()
        state = new.with_(
            id=err.id,
            outputs=mark_secrets(new, err.outputs),
            inputs=updated.inputs if updated else err.inputs or new.inputs,  # what an update did not reach is as before
            init_errors=tuple(err.reasons),
            created=created,
            modified=self._now(),
        )
        return replace(step, new=state)

    def _has_effect(self, step: Step) -> bool:
        """Whether the step changes anything outside the engine, so that it must be announced first."""
        state = step.state
        if self._x.dry_run or step.op in HARMLESS or not state.custom or is_provider_type(state.type):
            return False
        return step.op not in _DELETES or self._deletes_something(step)

    def _deletes_something(self, step: Step) -> bool:
        old = step.state
        if (step.op is Op.DELETE and old.protect) or old.external or old.retain_on_delete:
            return False
        if old.deleted_with and old.deleted_with in self.deleting:
            return False
        return old.custom and not is_provider_type(old.type) and not old.pending_replacement

    async def _apply(self, step: Step) -> ResourceState | None:
        if step.op in _DELETES:
            return await self._delete(step)
        if step.op is Op.REMOVE_PENDING_REPLACE:
            return None
        new = step.new
        if new is None:
            raise ValueError(f"step {step.op} of {step.urn} lacks its new state")
        if step.op is Op.REPLACE:
            return new
        if step.op is Op.SAME:
            return self._same(step, new)
        if step.op in _CREATES:
            return await self._create(step, new)
        if step.op in _READS:
            return await self._read(step, new)
        if step.op in _IMPORTS:
            return await self._import(new)
        return await self._update(step, new)

    def _same(self, step: Step, new: ResourceState) -> ResourceState:
        old = step.old
        if old is None:
            raise ValueError(f"nothing to keep for {step.urn}")
        if is_provider_type(new.type):
            self._x.registry.activate(new.urn, old.id, new.inputs)
        return new.with_(id=old.id, outputs=old.outputs, created=old.created, modified=old.modified)

    async def _try(
        self,
        step: Step,
        operation: Callable[[], Coroutine[Any, Any, _T]],
        before_next: Callable[[PartialFailure], Coroutine[Any, Any, None]] | None = None,
    ) -> _T:
        """Do a provider's operation, and again as long as the program's error hooks say so."""
        errors: list[str] = []
        while True:
            try:
                return await operation()
            except ProviderError as err:
                errors.insert(0, str(err))
                if not await self._wants_another_try(step, errors, err):
                    raise
                if isinstance(err, PartialFailure) and before_next is not None:
                    await before_next(err)

    async def _wants_another_try(self, step: Step, errors: Sequence[str], err: ProviderError) -> bool:
        try:
            return await self._x.hooks.wants_another_try(step, errors)
        except HookFailed as failure:
            if not isinstance(err, PartialFailure):
                raise
            half = PartialFailure(str(failure), id=err.id, outputs=err.outputs, inputs=err.inputs)
            half.reasons, half.told = err.reasons, str(failure)
            raise half from failure

    async def _remove_half_made(self, provider: Provider, new: ResourceState, err: PartialFailure) -> None:
        """A create that is tried again must not leave what it made before: nobody would know of it."""
        timeout = new.custom_timeouts.get("delete", 0)
        try:
            await provider.delete(new.urn, new.type, err.id, new.inputs, err.outputs, timeout)
        except ProviderError as failure:
            raise err from failure

    async def _create(self, step: Step, new: ResourceState) -> ResourceState:
        id, outputs, stale = "", new.outputs, False
        if is_provider_type(new.type):
            id = UNKNOWN_VALUE if self._x.dry_run else random_uuid()
            outputs = provider_outputs(new.inputs)
            self._x.registry.activate(new.urn, id, new.inputs)
        elif new.custom:
            provider = await self._x.registry.get(new.provider)
            timeout = new.custom_timeouts.get("create", 0)
            create = partial(provider.create, new.urn, new.type, new.inputs, timeout, self._x.dry_run)
            result = await self._try(step, create, partial(self._remove_half_made, provider, new))
            if not result.id and not self._x.dry_run:
                raise _Refused("provider did not return an ID from Create")
            id, outputs, stale = result.id, result.outputs, result.refresh_before_update
        now = self._now()
        state = new.with_(id=id, outputs=mark_secrets(new, outputs), created=now, modified=now)
        return state.with_(refresh_before_update=stale)

    async def _update(self, step: Step, new: ResourceState) -> ResourceState:
        old = step.old
        if old is None:
            raise ValueError(f"nothing to update for {step.urn}")
        outputs: PropertyMap = {}
        if is_provider_type(new.type):
            outputs = provider_outputs(new.inputs)
            self._x.registry.activate(new.urn, old.id, new.inputs)
        elif new.custom:
            provider = await self._x.registry.get(new.provider)
            update = partial(
                provider.update,
                new.urn,
                new.type,
                old.id,
                old.inputs,
                old.outputs,
                new.inputs,
                new.custom_timeouts.get("update", 0),
                new.ignore_changes,
                self._x.dry_run,
            )
            answer = await self._try(step, update)
            if isinstance(answer, UpdateResult):
                new = new.with_(refresh_before_update=answer.refresh_before_update)
            outputs = answer.outputs if isinstance(answer, UpdateResult) else answer
        state = new.with_(id=old.id, outputs=mark_secrets(new, outputs), created=old.created)
        return state.with_(modified=self._now() if new.custom else old.modified)

    async def _read(self, step: Step, new: ResourceState) -> ResourceState:
        if new.id == UNKNOWN_VALUE:
            return new
        provider = await self._x.registry.get(new.provider)
        result = await provider.read(new.urn, new.type, new.id, new.inputs, new.inputs)
        if not result.id:
            raise _Refused(f"resource '{new.id}' does not exist")
        state = new.with_(id=result.id, outputs=mark_secrets(new, result.outputs))
        old = step.old
        if old is None:
            return state
        changed = old.inputs != state.inputs or old.outputs != state.outputs
        return state.with_(created=old.created, modified=self._now() if changed else old.modified)

    async def _import(self, new: ResourceState) -> ResourceState:
        provider = await self._x.registry.get(new.provider)
        errors: tuple[str, ...] = ()
        try:
            result = await provider.read(new.urn, new.type, new.import_id, {}, {})
        except PartialFailure as err:
            errors, result = tuple(err.reasons), ReadResult(err.id, err.outputs, err.inputs or {})
        if not result.id:
            raise _Refused(f"resource '{new.import_id}' does not exist")
        now = self._now()
        state = new.with_(id=result.id, inputs=result.inputs, outputs=mark_secrets(new, result.outputs))
        return state.with_(
            init_errors=errors, created=now, modified=now, refresh_before_update=result.refresh_before_update
        )

    async def _delete(self, step: Step) -> ResourceState | None:
        old = step.state
        if step.op is Op.DELETE and old.protect:
            raise _Refused(
                f'resource "{old.urn}" cannot be deleted\nbecause it is protected. To unprotect the resource, either '
                "remove the `protect` flag from the resource in your Pulumi program and run `pulumi up`, or use the "
                f"command:\n`pulumi state unprotect '{old.urn}'`"
            )
        if not self._x.dry_run and self._deletes_something(step):
            provider = await self._x.registry.get(old.provider)
            timeout = old.custom_timeouts.get("delete", 0)
            delete = partial(provider.delete, old.urn, old.type, old.id, old.inputs, old.outputs, timeout)
            await self._try(step, delete)
        return old.with_(pending_replacement=True) if step.pending_replacement else None

    def _now(self) -> str:
        return rfc3339(self._x.clock.now())


def _status(step: Step, err: ProviderError, half: Step | None) -> FailedStatus:
    """What a failure says about the resource; a provider's plain error leaves open how far it got."""
    if half is not None:
        return FailedStatus.PARTIAL
    known = step.op in _CREATES or isinstance(err, _Refused | HookFailed)
    return FailedStatus.NOTHING if known else FailedStatus.UNKNOWN


def _as_asked(half: Step, step: Step) -> Step:
    """A half-done step with the inputs it was to bring about: events show those, the state those that hold."""
    if half.new is None or step.new is None:
        return half
    return replace(half, new=half.new.with_(inputs=step.new.inputs))


def _after(made: Step, step: Step) -> Step:
    """The step as it looks once another has made its resource: a `replace` shows what came of it."""
    if step.op is Op.REPLACE and made.op in _REPLACEMENTS and made.op is not step.op and made.urn == step.urn:
        return replace(step, old=_with_old_marked(made).old, new=made.new)
    return step


def _with_old_marked(step: Step) -> Step:
    """A replacement that is made leaves its old copy marked for deletion, and events show it so."""
    if step.op not in _REPLACEMENTS or step.old is None or step.old.pending_replacement:
        return step
    return replace(step, old=step.old.with_(delete=True))


def _is_news(step: Step) -> bool:
    """A read counts only where it shows that something changed since the last one."""
    old, new = step.old, step.new
    return step.op is not Op.READ or (old is not None and new is not None and old.outputs != new.outputs)


def rfc3339(moment: datetime) -> str:
    """UTC time as Go prints it: fractional digits without trailing zeros, `Z` at the end."""
    text = moment.strftime("%Y-%m-%dT%H:%M:%S.%f").rstrip("0").rstrip(".")
    return f"{text}Z"
