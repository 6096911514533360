"""Resource hooks: functions of the program that run before and after steps, and when one fails.

When a step has which hooks is in its state; what they do is the program's. Source: pulumi `resource_hooks.go`,
`deployment.go`, RunHooks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pulumi.runtime.proto import resource_pb2

from engine.deploy.callbacks import CallbackFailed, Callbacks
from engine.deploy.events import EngineEvents
from engine.deploy.property import UNKNOWN_VALUE, PropertyMap
from engine.deploy.provider import ProviderError
from engine.deploy.resource import ResourceState
from engine.deploy.step import Op, Step
from engine.deploy.urn import urn_name
from engine.deploy.wire import encode_struct

KINDS = {
    "before_create": "BeforeCreate",
    "after_create": "AfterCreate",
    "before_update": "BeforeUpdate",
    "after_update": "AfterUpdate",
    "before_delete": "BeforeDelete",
    "after_delete": "AfterDelete",
    "on_error": "OnError",
}
_VERBS = {
    Op.CREATE: "Create",
    Op.CREATE_REPLACEMENT: "Create",
    Op.UPDATE: "Update",
    Op.DELETE: "Delete",
    Op.DELETE_REPLACED: "Delete",
}


_MOST_TRIES = 100  # as officially; a hook that says "again" for ever must end some time


class HookFailed(ProviderError):
    """A hook that runs before a step, or for its error, raised: the step is not done."""


class DuplicateHook(Exception):
    """Two hooks of one name."""


class Hooks:
    """The hooks of one update."""

    def __init__(self, callbacks: Callbacks, events: EngineEvents, *, dry_run: bool) -> None:
        self._callbacks = callbacks
        self._events = events
        self._dry_run = dry_run
        self._registered: dict[str, Any] = {}
        self._for_errors: dict[str, Any] = {}
        self.failed = False

    def register(self, request: Any) -> None:
        """Take a `RegisterResourceHookRequest`.

        Raises:
            DuplicateHook: its name is taken.
        """
        if not request.name:
            raise DuplicateHook("resource hook name cannot be empty")
        if request.name in self._registered:
            raise DuplicateHook(f'resource hook already registered for name "{request.name}"')
        self._registered[request.name] = request

    def register_for_errors(self, request: Any) -> None:
        """Take a `RegisterErrorHookRequest`.

        Raises:
            DuplicateHook: its name is taken.
        """
        if not request.name:
            raise DuplicateHook("error hook name cannot be empty")
        if request.name in self._for_errors:
            raise DuplicateHook(f'error hook already registered for name "{request.name}"')
        self._for_errors[request.name] = request

    async def wants_another_try(self, step: Step, errors: Sequence[str]) -> bool:
        """Whether the program wants a failed step tried again; `errors`: what went wrong so far, newest first.

        Raises:
            HookFailed: a hook raised, or the program did not register it, or it was tried often enough.
        """
        verb = _VERBS[step.op]
        subject = step.old if verb == "Delete" else step.new
        names = subject.hooks.get(KINDS["on_error"], ()) if subject is not None else ()
        if not names:
            return False
        if len(errors) >= _MOST_TRIES:
            message = f"maximum number of error hook retries ({_MOST_TRIES}) reached"
            self._events.diagnostic("warning", message, urn=step.urn)
            raise HookFailed(f"{message}: {errors[0]}")
        answers = [await self._ask_for_another_try(name, step, verb.lower(), errors) for name in names]
        if any(answers):
            self._events.diagnostic(
                "warning",
                f"retrying {verb.lower()} due to on-error hook request ({len(errors)}/{_MOST_TRIES})",
                urn=step.urn,
            )
        return any(answers)

    async def _ask_for_another_try(self, name: str, step: Step, verb: str, errors: Sequence[str]) -> bool:
        hook = self._for_errors.get(name)
        if hook is None:
            raise HookFailed(
                f'{errors[0]}\nerror hooks execution failed: error hook "{name}" was not registered: the program that '
                "defines it must run, also for a destroy (`--run-program`)"
            )
        request = resource_pb2.ErrorHookRequest(
            urn=step.urn, name=urn_name(step.urn), type=step.state.type, failed_operation=verb, errors=errors
        )
        old, new = _sides(step)
        request.id = old.id if old is not None else ""
        _fill(request.new_inputs, new.inputs if new else None)
        _fill(request.old_inputs, old.inputs if old else None)
        _fill(request.old_outputs, old.outputs if old else None)
        try:
            answer = resource_pb2.ErrorHookResponse.FromString(await self._callbacks.call(hook.callback, request))
        except CallbackFailed as err:
            raise HookFailed(f'{errors[0]}\nerror hooks execution failed: error hook "{name}" failed: {err}') from err
        if answer.error:
            raise HookFailed(f'{errors[0]}\nerror hooks execution failed: error hook "{name}" failed: {answer.error}')
        return bool(answer.retry)

    async def before(self, step: Step) -> None:
        """Run what the resource wants run before such a step.

        Raises:
            HookFailed: a hook raised, or the program did not register it.
        """
        await self._run("Before", step)

    async def after(self, step: Step) -> None:
        """Run what the resource wants run after such a step; a failure fails the update, but the step is done."""
        try:
            await self._run("After", step)
        except HookFailed as err:
            self.failed = True
            self._events.diagnostic("error", str(err), urn=step.urn)

    async def _run(self, when: str, step: Step) -> None:
        verb = _VERBS.get(step.op, "")
        subject = step.old if verb == "Delete" else step.new
        if subject is None or not verb or not subject.hooks:
            return
        kind = f"{when}{verb}"
        await self._run_all(kind, subject.hooks.get(kind, ()), _request(when, step))

    async def _run_all(self, kind: str, names: Sequence[str], request: Any) -> None:
        for name in names:
            hook = self._registered.get(name)
            if hook is None:
                raise HookFailed(
                    f'hook "{name}" was not registered: the program that defines it must run, also for a destroy '
                    "(`--run-program`)"
                )
            if self._dry_run and not hook.on_dry_run:
                continue
            if error := await self._call(hook, request):
                if not hook.ignore_errors:
                    raise HookFailed(f'{"before" if kind.startswith("B") else "after"} hook "{name}" failed: {error}')
                self._events.diagnostic("warning", f'{kind} hook "{name}" failed: {error}', urn=request.urn)

    async def _call(self, hook: Any, request: Any) -> str:
        try:
            answer = resource_pb2.ResourceHookResponse.FromString(await self._callbacks.call(hook.callback, request))
        except CallbackFailed as err:
            return str(err)
        return str(answer.error)


def _sides(step: Step) -> tuple[ResourceState | None, ResourceState | None]:
    """The old and the new state, as far as a hook of such a step sees them."""
    old = None if step.op in (Op.CREATE, Op.CREATE_REPLACEMENT) else step.old
    new = None if step.op in (Op.DELETE, Op.DELETE_REPLACED) else step.new
    return old, new


def _request(when: str, step: Step) -> Any:
    old, new = _sides(step)
    state = step.state if new is not None and (new.id or old is None) else old or step.state
    request = resource_pb2.ResourceHookRequest(
        urn=step.urn,
        id="" if state.id == UNKNOWN_VALUE else state.id,
        name=urn_name(step.urn),
        type=state.type,
    )
    _fill(request.new_inputs, new.inputs if new else None)
    _fill(request.old_inputs, old.inputs if old else None)
    _fill(request.new_outputs, new.outputs if new and when == "After" else None)
    _fill(request.old_outputs, old.outputs if old else None)
    return request


def _fill(into: Any, properties: PropertyMap | None) -> None:
    if properties is not None:
        into.CopyFrom(encode_struct(properties))
