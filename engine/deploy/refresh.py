"""Brings a stack's state up to what the cloud says, resource by resource; changes nothing in the cloud.

Source: pulumi `step.go`, RefreshStep.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

from engine.deploy.diff import invert
from engine.deploy.events import FailedStatus
from engine.deploy.provider import DiffResult, PartialFailure, ProviderError, ReadResult
from engine.deploy.registry import ask_diff
from engine.deploy.resource import ResourceState
from engine.deploy.secret_outputs import annotate, mark_secrets
from engine.deploy.step import Op, Step
from engine.deploy.step_executor import Execution, StepExecutor, StepFailed, rfc3339
from engine.deploy.urn import is_provider_type


class Refresher:
    """Reads resources and records what became of them."""

    def __init__(self, execution: Execution, executor: StepExecutor, parallel: int, *, counting: bool) -> None:
        """`counting`: the refresh is the update itself, not what comes before one, and its results are its changes."""
        self._x = execution
        self._counting = counting
        self._executor = executor
        self._slots = asyncio.Semaphore(max(1, parallel))

    async def refresh(self, state: ResourceState, wanted: ResourceState | None = None) -> ResourceState | None:
        """Refresh one resource; returns what it became (None: it is gone).

        Args:
            wanted: the resource as the program registers it, which then gives its provider and options.

        Raises:
            StepFailed: the provider could not say; the state stays as it was.
        """
        async with self._slots:
            step = Step(Op.REFRESH, state.urn, state, state, logical=False)
            self._x.events.before(step)
            try:
                new, diff = await self.read(state, wanted)
            except ProviderError as err:
                self._x.events.diagnostic("error", str(err), urn=state.urn)
                self._executor.failed = True
                self._x.events.failed(step, status=FailedStatus.UNKNOWN, steps_done=self._executor.steps_done)
                raise StepFailed(str(err)) from err
            self._record(step, state, new, diff)
            return new

    def _record(self, step: Step, old: ResourceState, new: ResourceState | None, diff: DiffResult) -> None:
        if new != old:
            self._x.ledger.succeed(Op.REFRESH, self._x.ledger.next_step(), old, new)
        op = Op.DELETE if new is None else Op.UPDATE if diff.changes else Op.SAME
        shown = op if self._counting else Op.REFRESH
        done = replace(step, op=shown, new=new, diffs=tuple(diff.changed_keys), detailed_diff=diff.detailed_diff)
        self._x.events.outputs(done)
        self._executor.steps_done += 1
        if self._counting:
            self._executor.count(op, old.urn)

    async def read(
        self, old: ResourceState, wanted: ResourceState | None = None
    ) -> tuple[ResourceState | None, DiffResult]:
        """The state as the cloud has it (None: gone), and how it differs from what the program last asked."""
        wanted = wanted or old
        if not old.custom or is_provider_type(old.type) or old.pending_replacement:
            return old, DiffResult(False)
        provider = await self._x.registry.get(wanted.provider)
        errors: tuple[str, ...] = ()
        try:
            result = await provider.read(wanted.urn, old.type, old.id, old.inputs, old.outputs)
        except PartialFailure as err:
            errors = tuple(err.reasons)
            result = ReadResult(err.id, err.outputs, old.inputs if err.inputs is None else err.inputs)
            self._x.events.diagnostic(
                "warning", "Refreshed resource is in an unhealthy state:\n* " + "\n* ".join(errors), urn=old.urn
            )
        if not result.id:
            return None, DiffResult(True)
        new = self._state(old, wanted, result, errors)
        if old.external:
            return new, DiffResult(old.outputs != new.outputs)
        diff = await ask_diff(provider, new.urn, new, old.inputs, old.ignore_changes)
        return new, invert(diff)

    def _state(
        self, old: ResourceState, wanted: ResourceState, result: ReadResult, errors: tuple[str, ...]
    ) -> ResourceState:
        new = wanted.with_(
            id=result.id,
            inputs=annotate(result.inputs, old.inputs),
            outputs=annotate(mark_secrets(wanted, result.outputs), old.outputs),
            init_errors=errors,
            taint=old.taint,
            refresh_before_update=result.refresh_before_update,
        )
        if new.inputs == old.inputs and new.outputs == old.outputs:
            is_same = list(old.init_errors) == list(errors) and old.refresh_before_update == new.refresh_before_update
            return old if is_same and wanted is old else new
        return new.with_(modified=rfc3339(self._x.clock.now()))
