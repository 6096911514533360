"""EmbeddedPulumi: a `PulumiCommand` of the Automation API that runs no process.

Here are the table of verbs and the edge where errors become exit codes; what a verb does is in the other modules.
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
from engine.deploy.command import about, configuration, deployments, importing, operations, stacks, state
from engine.deploy.command.arguments import Flags, UsageError, parse
from engine.deploy.command.console import Console
from engine.deploy.command.loop import EngineLoop
from engine.deploy.command.session import CommandFailed, Services, Session, StackNotFound
from engine.deploy.command.terminal import Terminal
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
_EXPECTED = (BackendError, CheckpointError, SecretsError, ConfigError, OSError)


def _flags(switches: str = "", values: str = "", ignored: str = "") -> Flags:
    return Flags(frozenset(switches.split()), frozenset(values.split()), frozenset(ignored.split()))


def _operation(switches: str = "", values: str = "") -> Flags:
    return _flags(
        "yes skip-preview diff json refresh expect-no-changes suppress-outputs suppress-progress suppress-reads "
        f"show-sames show-reads show-replacement-steps target-dependents exclude-dependents {switches}",
        "stack client exec-kind event-log parallel message config-file exec-agent target exclude provider-source "
        f"{values}",
        "suppress-permalink debug show-config show-secrets show-full-output copilot neo",
    )


_STACK = _flags(values="stack")
_POLICY = "policy-pack policy-pack-config"
_CONFIG = _flags("json show-secrets path secret plaintext force yes", "stack config-file type")
_VERBS: Mapping[tuple[str, ...], tuple[Flags, Callable[[Session], None]]] = {
    ("version",): (_flags(), about.version),
    ("whoami",): (_flags("json"), about.whoami),
    ("plugin", "ls"): (_flags("json"), about.plugin_ls),
    ("stack",): (_flags("show-urns show-ids show-secrets show-name", "stack"), deployments.show),
    ("stack", "select"): (_flags("create", "stack"), stacks.select),
    ("stack", "init"): (_flags("no-select", "stack secrets-provider"), stacks.init),
    ("stack", "ls"): (_flags("json all", "project"), stacks.ls),
    ("stack", "rm"): (_flags("yes force preserve-config remove-backups", "stack"), stacks.rm),
    ("stack", "tag", "ls"): (_flags("json", "stack"), stacks.tag_ls),
    ("stack", "tag", "get"): (_STACK, stacks.tag_get),
    ("stack", "tag", "set"): (_STACK, stacks.tag_set),
    ("stack", "tag", "rm"): (_STACK, stacks.tag_rm),
    ("stack", "output"): (_flags("json show-secrets", "stack"), deployments.output),
    ("stack", "history"): (_flags("json show-secrets", "stack page page-size"), deployments.history),
    ("stack", "export"): (_flags("show-secrets", "stack file version"), deployments.export),
    ("stack", "import"): (_flags("force", "stack file"), deployments.import_),
    ("stack", "rename"): (_STACK, state.rename_stack_),
    ("stack", "graph"): (
        _flags(
            "ignore-parent-edges ignore-dependency-edges short-node-name",
            "stack dependency-edge-color parent-edge-color",
        ),
        state.graph,
    ),
    ("stack", "change-secrets-provider"): (_STACK, state.change_secrets_provider),
    ("state", "delete"): (_flags("force target-dependents yes", "stack"), state.delete),
    ("state", "protect"): (_flags("all yes", "stack"), state.protect),
    ("state", "unprotect"): (_flags("all yes", "stack"), state.unprotect),
    ("state", "rename"): (_flags("yes", "stack"), state.rename),
    ("cancel",): (_flags("yes", "stack"), deployments.cancel),
    ("config",): (_CONFIG, configuration.show),
    ("config", "get"): (_CONFIG, configuration.get),
    ("config", "set"): (_CONFIG, configuration.set_),
    ("config", "set-all"): (
        _flags("path yes", "stack config-file plaintext secret json"),
        configuration.set_all,
    ),
    ("config", "cp"): (_flags("path", "stack config-file dest"), configuration.cp),
    ("config", "rm"): (_CONFIG, configuration.rm),
    ("config", "rm-all"): (_CONFIG, configuration.rm_all),
    ("config", "refresh"): (_CONFIG, configuration.refresh),
    ("preview",): (_operation(values=f"save-plan replace target-replace {_POLICY}"), operations.preview),
    ("up",): (_operation("continue-on-error strict", f"plan replace target-replace {_POLICY}"), operations.up),
    ("import",): (
        _flags(
            "yes skip-preview preview-only diff json suppress-outputs suppress-progress protect generate-code",
            "stack file parent provider properties out message parallel config-file provider-source exec-kind "
            "event-log",
            "suppress-permalink debug exec-agent",
        ),
        importing.import_,
    ),
    ("refresh",): (_operation("clear-pending-creates", "run-program import-pending-creates"), operations.refresh),
    ("destroy",): (_operation("continue-on-error preview-only", "run-program"), operations.destroy),
}


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
            arguments = parse(args, {verb: flags for verb, (flags, _) in _VERBS.items()})
            _, perform = _VERBS[arguments.verb]
            perform(Session(arguments, cwd, env, console, self._services))
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
