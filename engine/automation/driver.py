"""StackDriver: one door to `pulumi.automation`, whichever command runs below it.

Blocking; for worker threads. Knows no deployments, no queue and no leases beyond the `Fence` it is handed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pulumi.automation import (
    CommandError,
    ConcurrentUpdateError,
    ConfigValue,
    EngineEvent,
    LocalWorkspace,
    OutputMap,
    Stack,
    StackNotFoundError,
    StackSettings,
)

from engine.automation.choice import CommandFor
from engine.automation.request import StackRequest, StackResult
from engine.model.clock import Clock, SystemClock
from engine.model.errors import NotFound, StackError
from engine.model.fence import Fence, NoFence
from engine.model.ids import random_text

OnEvent = Callable[[EngineEvent], Any]
_ERROR_LINES = 40  # enough for a provider's message with its request; the whole text stays in `details`


@dataclass(frozen=True)
class StackSummary:
    """One stack in a list. `updated_at` and `resources` are None for one that was never updated."""

    name: str
    updated_at: datetime | None = None
    resources: int | None = None
    is_updating: bool = False


class StackDriver:
    """Runs the Pulumi operations of one project.

    Args:
        backend_url: where stacks are stored (`file:///…`).
        passphrase_salt: the installation's salt for stacks created here.
        work_dir: parent of one work folder per stack, where its `Pulumi.yaml` and `Pulumi.<stack>.yaml` are.
        command_for: the command that works under a fence (`choose_command`).
        environment: further variables for the command (a cloud's credentials).
    """

    def __init__(
        self,
        *,
        project: str,
        backend_url: str,
        passphrase: str,
        passphrase_salt: str,
        work_dir: Path,
        command_for: CommandFor,
        environment: Mapping[str, str],
        clock: Clock | None = None,
    ) -> None:
        self._project = project
        self._salt = passphrase_salt
        self._work_dir = work_dir
        self._command_for = command_for
        self._clock = clock or SystemClock()
        self._env = {
            **environment,
            "PULUMI_BACKEND_URL": backend_url,
            "PULUMI_CONFIG_PASSPHRASE": passphrase,
            "PULUMI_SKIP_UPDATE_CHECK": "true",
        }

    def up(self, request: StackRequest, *, fence: Fence, on_event: OnEvent | None = None) -> StackResult:
        """Create or update a stack until it is what its program says.

        Raises:
            StackError: the program, a provider or the engine failed; the message has the diagnostics.
            StaleLease: the fence closed; nothing more was written.
        """
        with self._mapped(request.stack, "up") as started:
            stack = self._configured(request, fence)
            result = stack.up(on_event=on_event)
            changes = result.summary.resource_changes
            return self._result(started, _plain(result.outputs), changes)

    def preview(self, request: StackRequest, *, fence: Fence, on_event: OnEvent | None = None) -> StackResult:
        """What `up` would change; makes the stack's entry if there is none, and nothing in the cloud."""
        with self._mapped(request.stack, "preview") as started:
            result = self._configured(request, fence).preview(on_event=on_event)
            return self._result(started, {}, result.change_summary)

    def refresh(self, request: StackRequest, *, fence: Fence, on_event: OnEvent | None = None) -> StackResult:
        """Take what is in the cloud into the stack.

        Raises:
            NotFound: no such stack.
        """
        with self._mapped(request.stack, "refresh") as started:
            stack = self._selected(request.stack, fence, request.program)
            result = stack.refresh(on_event=on_event)
            return self._result(started, _plain(stack.outputs()), result.summary.resource_changes)

    def destroy(
        self, request: StackRequest, *, fence: Fence, remove: bool = False, on_event: OnEvent | None = None
    ) -> StackResult:
        """Delete everything a stack has; a stack that does not exist is destroyed already.

        Args:
            remove: also forget the stack, its history and its work folder's files.
        """
        with self._mapped(request.stack, "destroy") as started:
            try:
                stack = self._selected(request.stack, fence, request.program)
            except StackNotFoundError:
                return self._result(started, {}, {})
            result = stack.destroy(on_event=on_event, remove=remove)
            if remove:
                self._forget(request.stack)
            return self._result(started, {}, result.summary.resource_changes)

    def cancel(self, stack: str, *, fence: Fence | None = None) -> None:
        """Free a stack from an update that will not end by itself; stops one that runs in this process.

        Raises:
            NotFound: no such stack.
        """
        with self._mapped(stack, "cancel"):
            self._selected(stack, fence or NoFence()).cancel()

    def outputs(self, stack: str) -> dict[str, Any]:
        """A stack's plain outputs, secrets opened.

        Raises:
            NotFound: no such stack.
        """
        with self._mapped(stack, "stack output"):
            return _plain(self._workspace(stack, NoFence()).stack_outputs(stack))

    def export(self, stack: str) -> dict[str, Any]:
        """A stack's deployment, secrets shown.

        Raises:
            NotFound: no such stack.
        """
        with self._mapped(stack, "stack export"):
            return dict(self._workspace(stack, NoFence()).export_stack(stack).deployment or {})

    def stacks(self) -> list[StackSummary]:
        """All stacks of the project, sorted by name."""
        with self._mapped("", "stack ls"):
            found = self._workspace("", NoFence()).list_stacks()
        return [
            StackSummary(
                name=s.name,
                updated_at=s.last_update.replace(tzinfo=UTC) if s.last_update else None,
                resources=s.resource_count,
                is_updating=bool(s.update_in_progress),
            )
            for s in sorted(found, key=lambda s: s.name)
        ]

    def exists(self, stack: str) -> bool:
        """Whether there is such a stack, updated or not."""
        try:
            with self._mapped(stack, "stack select"):
                self._selected(stack, NoFence())
        except NotFound:
            return False
        return True

    def work_folder(self, stack: str) -> Path:
        """The folder a stack's settings are in; "" is the project's own, for questions about no stack."""
        return self._work_dir / (stack or ".project")

    def _workspace(self, stack: str, fence: Fence, program: Callable[[], None] | None = None) -> LocalWorkspace:
        folder = self.work_folder(stack)
        self._write_project(folder)
        return LocalWorkspace(
            work_dir=str(folder),
            program=program,
            env_vars=self._env,
            pulumi_command=self._command_for(fence),
        )

    def _write_project(self, folder: Path) -> None:
        """Put a `Pulumi.yaml` where there is none; whole at once, because others may be reading it."""
        path = folder / "Pulumi.yaml"
        if path.exists():
            return
        folder.mkdir(parents=True, exist_ok=True)
        settings = {"name": self._project, "runtime": "python", "main": str(folder)}
        draft = folder / f".Pulumi.yaml.{random_text(8)}"
        draft.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in settings.items()), encoding="utf-8")
        draft.replace(path)

    def _selected(self, stack: str, fence: Fence, program: Callable[[], None] | None = None) -> Stack:
        return Stack.select(stack, self._workspace(stack, fence, program))

    def _configured(self, request: StackRequest, fence: Fence) -> Stack:
        """The stack, made if need be, with exactly the request's configuration; what is right is left alone."""
        workspace = self._workspace(request.stack, fence, request.program)
        settings = self.work_folder(request.stack) / f"Pulumi.{request.stack}.yaml"
        if self._salt and not settings.exists():
            workspace.save_stack_settings(request.stack, StackSettings(encryption_salt=self._salt))
        stack = Stack.create_or_select(request.stack, workspace)
        wanted = {key: ConfigValue(c.value, secret=c.secret) for key, c in request.config.items()}
        present = stack.get_all_config()
        changed = {k: v for k, v in wanted.items() if not _same(present.get(k), v)}
        surplus = [k for k in present if k not in wanted]
        if changed:
            stack.set_all_config(changed)
        if surplus:
            stack.remove_all_config(surplus)
        return stack

    def _forget(self, stack: str) -> None:
        folder = self.work_folder(stack)
        for name in ("Pulumi.yaml", f"Pulumi.{stack}.yaml"):
            (folder / name).unlink(missing_ok=True)
        if folder.exists() and not any(folder.iterdir()):
            folder.rmdir()

    def _result(self, started: float, outputs: dict[str, Any], changes: Mapping[Any, int] | None) -> StackResult:
        counts = {str(getattr(op, "value", op)): int(n) for op, n in (changes or {}).items()}
        return StackResult(outputs, counts, self._clock.monotonic() - started)

    @contextmanager
    def _mapped(self, stack: str, operation: str) -> Iterator[float]:
        """Turns the SDK's errors into ours; `StaleLease` passes."""
        try:
            yield self._clock.monotonic()
        except StackNotFoundError as err:
            raise NotFound(f"no stack named '{stack}'", stack=stack) from err
        except ConcurrentUpdateError as err:
            raise StackError(diagnostics(str(err)), stack=stack, operation=operation, reason="locked") from err
        except CommandError as err:
            text = str(err)
            raise StackError(diagnostics(text), stack=stack, operation=operation, output=text) from err


def _same(present: ConfigValue | None, wanted: ConfigValue) -> bool:
    return present is not None and (present.value, bool(present.secret)) == (wanted.value, bool(wanted.secret))


def _plain(outputs: OutputMap) -> dict[str, Any]:
    return {name: output.value for name, output in outputs.items()}


def diagnostics(text: str) -> str:
    """What a failed command said that matters: its error stream, else the diagnostics' errors.

    Args:
        text: a `CommandError` as text: exit code, stdout, stderr.
    """
    stdout, _, stderr = text.partition("\n stderr: ")
    if stderr.strip():
        return stderr.strip().removeprefix("error: ")
    _, found, rest = stdout.partition("\nDiagnostics:\n")
    if not found:
        return stdout.strip()
    errors = _errors(rest)
    return "\n".join(errors[:_ERROR_LINES]) or "update failed"


def _errors(section: str) -> list[str]:
    """The error messages of a "Diagnostics:" section with their resources; the closing "update failed" is left out."""
    lines: list[str] = []
    resource, in_error = "", False
    for line in section.split("\n"):
        if line[:2].strip():  # the next section
            break
        if line.startswith("    "):
            text = line.strip()
            if text.startswith(("error: ", "warning: ")):
                in_error = text.startswith("error: ") and text != "error: update failed"
                text = f"{resource} {text.removeprefix('error: ')}"
            if in_error:
                lines.append(text)
        elif line.strip():
            resource, in_error = line.strip(), False
    return lines
