"""What one command works with: arguments, project, backend, stack, configuration and secrets, opened on demand.

Does nothing by itself; the verbs do.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from engine.deploy.backend.blobs import BackendError
from engine.deploy.backend.file import replace_file
from engine.deploy.backend.open import open_backend
from engine.deploy.backend.stacks import Backend, StackReference, parse_reference
from engine.deploy.command.arguments import SWITCH, Arguments
from engine.deploy.command.console import Console
from engine.deploy.command.loop import EngineLoop
from engine.deploy.command.stored_stack import StackStore
from engine.deploy.command.terminal import Terminal
from engine.deploy.config_change import ConfigChange
from engine.deploy.local_program import DEADLINE_SECONDS
from engine.deploy.program import ProgramSource
from engine.deploy.secrets import PassphraseSecrets, SecretsError
from engine.deploy.stack_config import ConfigEntry, ConfigError, Project, StackConfig, config_path, find_project
from engine.deploy.update import ProviderSource
from engine.model.clock import Clock
from engine.model.fence import Fence


class StackNotFound(BackendError):
    """No such stack; the words are the official engine's, which the SDK recognises."""


class CommandFailed(Exception):
    """The command did its work and must end with an error code; everything is already printed."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class Services:
    """What the engine below the command line is made of.

    Attributes:
        programs: address of a language host and the project's folder → the program behind it.
        passphrase_salt: salt for stacks created here; "" makes a new one for each.
        executor: id of this process in the lease table.
        program_deadline_seconds: how long a program in a folder may take.
        terminal: the person who runs the commands; None: nobody can be asked.
        piped: standard input to its end, for what takes a document from there; None: there is none.
    """

    providers: ProviderSource
    programs: Callable[[str, Path], ProgramSource]
    clock: Clock
    fence: Fence
    loop: EngineLoop
    passphrase_salt: str = ""
    executor: str = ""
    program_deadline_seconds: float = DEADLINE_SECONDS
    terminal: Terminal | None = None
    piped: Callable[[], str | None] = lambda: None


class Session:
    """One run of one command."""

    def __init__(
        self, arguments: Arguments, cwd: Path, env: Mapping[str, str], console: Console, services: Services
    ) -> None:
        self.arguments = arguments
        self.env = env
        self.console = console
        self.services = services
        self.cwd = cwd / arguments.text("cwd")
        silent = arguments.has("non-interactive") or arguments.has("json")
        self.terminal = None if silent else services.terminal

    @cached_property
    def project(self) -> Project:
        """The project of the working folder."""
        return find_project(self.cwd)

    @cached_property
    def backend(self) -> Backend:
        """The backend named by PULUMI_BACKEND_URL, else by the project."""
        url = self.env.get("PULUMI_BACKEND_URL", "")
        return open_backend(url or self.project.backend_url, self.cwd, self.env)

    def reference(self, text: str) -> StackReference:
        """A stack's name in this project."""
        known = self.project.name if text.count("/") < 2 else ""
        return parse_reference(text, known)

    @cached_property
    def stack(self) -> StackReference:
        """The stack of `--stack` or the current one; it exists.

        Raises:
            StackNotFound: it does not.
        """
        text = self.arguments.text("stack") or self.selected()
        if not text:
            raise BackendError("no stack selected; please use `pulumi stack select` to choose one, or pass --stack")
        return self.existing(text)

    def existing(self, text: str) -> StackReference:
        """The stack of that name; it exists."""
        stack = self.reference(text)
        if not self.backend.exists(stack):
            raise StackNotFound(f"no stack named '{text}' found")
        return stack

    @cached_property
    def store(self) -> StackStore:
        """Where the stack is read and written."""
        return self.store_of(self.stack)

    def store_of(self, stack: StackReference) -> StackStore:
        """Where some stack is read and written."""
        services = self.services
        return StackStore(
            self.backend,
            stack,
            open_secrets=self.open_secrets,
            clock=services.clock,
            fence=services.fence,
            executor=services.executor,
        )

    @cached_property
    def config(self) -> StackConfig:
        """The stack's configuration file."""
        return self.config_of(self.stack)

    def config_of(self, stack: StackReference) -> StackConfig:
        """Some stack's configuration file.

        Raises:
            ConfigError: it needs what is not implemented here; the message names it.
        """
        chosen = self.arguments.text("config-file")
        path = self.cwd / chosen if chosen else config_path(self.project, stack.name)
        change = ConfigChange(path)
        if change.is_pending and self.backend.exists(stack):
            change.finish(self.store_of(stack).salt())
        config = StackConfig.load(path)
        if config.secrets_provider not in ("", "default", "passphrase"):
            raise ConfigError(f"secrets provider {config.secrets_provider!r} in {config.path}: {SWITCH}")
        if config.environments:
            raise ConfigError(f"`environment` in {config.path}: {SWITCH}")
        return config

    def entries(self, *, show_secrets: bool = True) -> Mapping[str, ConfigEntry]:
        """The stack's configuration by full key; secrets in the clear only if they are to be shown."""
        return self.config.entries(self.project.name, self.config_secrets if show_secrets else None)

    def open_secrets(self, salt: str) -> PassphraseSecrets:
        """The manager of a salt.

        Raises:
            SecretsError: no passphrase, or the wrong one.
        """
        return PassphraseSecrets.open(self._passphrase(), salt, self.services.loop.keys)

    def config_secrets(self) -> PassphraseSecrets:
        """The manager of the stack's configuration: the file's salt, else its checkpoint's, else a new stack's."""
        return self._config_secrets

    @cached_property
    def _config_secrets(self) -> PassphraseSecrets:
        return self.secrets_for_new(self.config.salt or self.store.salt())

    def secrets_for_new(self, salt: str = "") -> PassphraseSecrets:
        """The manager of a salt; without one, that of the installation or a fresh one."""
        if known := salt or self.services.passphrase_salt:
            return self.open_secrets(known)
        return PassphraseSecrets.create(self._passphrase(), self.services.loop.keys)

    def _passphrase(self) -> str:
        if "PULUMI_CONFIG_PASSPHRASE" in self.env:
            return self.env["PULUMI_CONFIG_PASSPHRASE"]
        if path := self.env.get("PULUMI_CONFIG_PASSPHRASE_FILE"):
            try:
                return (self.cwd / path).read_text(encoding="utf-8").strip()
            except OSError as err:
                raise SecretsError(f"unable to read PULUMI_CONFIG_PASSPHRASE_FILE: {err}") from err
        raise SecretsError(
            "passphrase must be set with PULUMI_CONFIG_PASSPHRASE or PULUMI_CONFIG_PASSPHRASE_FILE "
            "environment variables"
        )

    def selected(self) -> str:
        """The stack selected for this project, "" if none is."""
        path = self._selection_path()
        try:
            return str(json.loads(path.read_bytes()).get("stack", "")) if path else ""
        except (FileNotFoundError, ValueError):
            return ""

    def select(self, stack: StackReference) -> None:
        """Make a stack the current one of its project."""
        path = self._selection_path()
        if path and self.selected() != stack.name:
            replace_file(path, json.dumps({"stack": stack.name}, indent=4).encode())

    def deselect(self, stack: StackReference) -> None:
        """Forget the current stack if it is this one."""
        path = self._selection_path()
        if path and self.reference(self.selected() or "-").name == stack.name:
            path.unlink(missing_ok=True)

    def _selection_path(self) -> Path | None:
        home = self.env.get("PULUMI_HOME") or (f"{self.env['HOME']}/.pulumi" if self.env.get("HOME") else "")
        if not home:
            return None
        project = hashlib.sha1(str(self.project.path).encode(), usedforsecurity=False).hexdigest()
        return Path(home) / "workspaces" / f"{self.project.name}-{project}-workspace.json"
