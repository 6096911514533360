"""EmbeddedPulumi: a `PulumiCommand` of the Automation API that runs no process.

Here is the edge where errors become exit codes; the table of verbs is in `verbs.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pulumi.automation import CommandResult, PulumiCommand
from pulumi.automation.errors import create_command_error
from semver import VersionInfo

from engine.deploy.backend.blobs import BackendError
from engine.deploy.checkpoint import COMPATIBLE_VERSION, CheckpointError
from engine.deploy.command.arguments import UsageError, parse
from engine.deploy.command.console import Console
from engine.deploy.command.loop import EngineLoop
from engine.deploy.command.session import CommandFailed, Services, Session, StackNotFound
from engine.deploy.command.state_edit import CannotEdit
from engine.deploy.command.terminal import Terminal
from engine.deploy.command.usage import help_text
from engine.deploy.command.verbs import ALIASES, REFUSED, VERBS
from engine.deploy.local_program import DEADLINE_SECONDS
from engine.deploy.program import ProgramSource
from engine.deploy.secrets import SecretsError
from engine.deploy.source import LanguageRuntimeSource
from engine.deploy.stack_config import ConfigError
from engine.deploy.update import ProviderSource
from engine.model.clock import Clock
from engine.model.fence import Fence, NoFence

_GENERAL_ERROR = 1
_USAGE_ERROR = 2  # Pulumi's documentation, "CLI exit codes"
_STACK_NOT_FOUND = 6  # as recorded
_EXPECTED = (BackendError, CheckpointError, SecretsError, ConfigError, CannotEdit, OSError)


class EmbeddedPulumi(PulumiCommand):
    """The engine in this process, in the place of the `pulumi` binary.

    Cheap to make: one per fence, all sharing one `EngineLoop`. Safe to use from many threads.

    Args:
        providers: where providers come from.
        fence: guards every write and effect of the commands run through this object.
        environment: the process's environment; what `additional_env` of a command overrides.
        passphrase_salt: the installation's salt (`secrets.new_salt`) for stacks created here; "": one for each.
        executor_id: this process in the lease table, written into locks so that others can tell whether it lives.
        loop: the process's engine loop; without one, the object makes its own (and derives its own keys).
        programs: how to reach the program behind `--client`.
        program_deadline_seconds: how long a program in a folder may take before it is killed.
        terminal: the person in front of it; None: nobody can be asked, and updates print lines.
        piped: reads standard input to its end; None where there is none.
    """

    def __init__(
        self,
        *,
        providers: ProviderSource,
        clock: Clock,
        environment: Mapping[str, str],
        fence: Fence | None = None,
        passphrase_salt: str = "",
        executor_id: str = "",
        loop: EngineLoop | None = None,
        programs: Callable[[str, Path], ProgramSource] = LanguageRuntimeSource,
        program_deadline_seconds: float = DEADLINE_SECONDS,
        terminal: Terminal | None = None,
        piped: Callable[[], str | None] = lambda: None,
    ) -> None:
        # The base class's own constructor looks for the binary; nothing of it is wanted.
        self.command = "pulumi (embedded)"
        self.version = VersionInfo.parse(COMPATIBLE_VERSION)
        self._environment = dict(environment)
        self._services = Services(
            providers=providers,
            programs=programs,
            clock=clock,
            fence=fence or NoFence(),
            loop=loop or EngineLoop(),
            passphrase_salt=passphrase_salt,
            executor=executor_id,
            program_deadline_seconds=program_deadline_seconds,
            terminal=terminal,
            piped=piped,
        )

    def run(
        self,
        args: list[str],
        cwd: str,
        additional_env: Mapping[str, str],
        on_output: Callable[[str], Any] | None = None,
        on_error: Callable[[str], Any] | None = None,
    ) -> CommandResult:
        """Run one command line.

        Raises:
            CommandError: it failed; the subclass is the one the SDK would raise for the binary.
            StaleLease: the fence closed; nothing more was written.
        """
        result = self.execute(args, cwd, additional_env, on_output, on_error)
        if result.code != 0:
            raise create_command_error(result)
        return result

    def execute(
        self,
        args: Sequence[str],
        cwd: str,
        additional_env: Mapping[str, str],
        on_output: Callable[[str], Any] | None = None,
        on_error: Callable[[str], Any] | None = None,
    ) -> CommandResult:
        """Run one command line and return also a failure as its result, for those who only want the exit code."""
        console = Console(on_output, on_error)
        code = self._dispatch(list(args), Path(cwd), {**self._environment, **additional_env}, console)
        return CommandResult(stdout=console.stdout, stderr=console.stderr, code=code)

    def _dispatch(self, args: list[str], cwd: Path, env: Mapping[str, str], console: Console) -> int:
        try:
            if (text := help_text(args)) is not None:
                console.out(text)
                return 0
            arguments = parse(args, {words: verb.flags for words, verb in VERBS.items()}, ALIASES, REFUSED)
            VERBS[arguments.verb].perform(Session(arguments, cwd, env, console, self._services))
        except CommandFailed as err:
            return err.code
        except StackNotFound as err:
            console.error(f"error: {err}")
            return _STACK_NOT_FOUND
        except UsageError as err:
            console.error(f"error: {err}")
            return _USAGE_ERROR
        except _EXPECTED as err:
            console.error(f"error: {err}")
            return _GENERAL_ERROR
        return 0
