"""`stackyard pulumi …`: Pulumi's command line on the embedded engine, for operators where the CLI is absent."""

from __future__ import annotations

import getpass
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from api.cloud_account import shared_budget
from api.settings import Settings, load
from api.stack_driver import PASSPHRASE_VARIABLE, CloudProviders, ensure_installation, passphrase
from engine.deploy.command import EmbeddedPulumi, EngineLoop
from engine.deploy.command.arguments import find_words
from engine.deploy.command.terminal import Terminal
from engine.deploy.command.usage import help_text
from engine.deploy.providers.digitalocean.api import HttpClients
from engine.deploy.stack_config import ConfigError, find_project
from engine.identity import installation_secret
from engine.model.budget import CallBudget, Unlimited
from engine.model.clock import SystemClock
from engine.store import migrate
from engine.store.database import Database

BACKEND_VARIABLE = "PULUMI_BACKEND_URL"
_PASSPHRASE_VARIABLES = (PASSPHRASE_VARIABLE, f"{PASSPHRASE_VARIABLE}_FILE")

app = typer.Typer(add_completion=False)


@app.command(
    "pulumi",
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    help="Run a Pulumi command line (preview, up, refresh, destroy, stack, config, state, …) in this folder.",
)
def pulumi(
    arguments: Annotated[list[str] | None, typer.Argument(help="as the official CLI takes them")] = None,
) -> None:
    """Hand the command line to the engine; its exit code is ours."""
    sys.exit(run(list(arguments or [])))


def run(arguments: list[str]) -> int:
    """Run one command line here and now; returns the exit code."""
    if (text := help_text(arguments)) is not None:
        typer.echo(text if find_words(arguments) else f"{text}\n\n{_WHERE}")
        return 0
    terminal = Terminal(sys.stdout, input, getpass.getpass) if sys.stdin.isatty() and sys.stdout.isatty() else None
    with ExitStack() as stack:
        loop = EngineLoop()
        stack.callback(loop.close)
        environment, budget, salt, settings = stack.enter_context(_installation(loop))
        command = EmbeddedPulumi(
            providers=CloudProviders(
                environment,
                budget,
                SystemClock(),
                HttpClients(),
                settings.digitalocean_api_endpoint,
                settings.container_pids,
            ),
            clock=SystemClock(),
            environment=environment,
            passphrase_salt=salt,
            loop=loop,
            terminal=terminal,
            piped=lambda: None if sys.stdin.isatty() else sys.stdin.read(),
        )
        stack.enter_context(_interrupts(loop))
        return command.execute(
            arguments, str(Path.cwd()), {}, on_output=typer.echo, on_error=lambda line: typer.echo(line, err=True)
        ).code


@contextmanager
def _installation(loop: EngineLoop) -> Iterator[tuple[Mapping[str, str], CallBudget, str, Settings]]:
    """The environment of the command, the budget of cloud calls, the salt of new stacks, and the settings.

    Without PULUMI_BACKEND_URL (or a backend in Pulumi.yaml) it is this installation's backend and passphrase; with one,
    the installation is left alone: whoever names a backend also knows its passphrase.
    """
    settings, environment = load(), dict(os.environ)
    if environment.get(BACKEND_VARIABLE) or _project_backend():
        yield environment, Unlimited(), "", settings
        return
    clock = SystemClock()
    secret = installation_secret.load_or_create(settings.data_dir, settings.secret_key)
    if not settings.backend_url:
        Path(settings.resolved_backend_url.removeprefix("file://")).mkdir(parents=True, exist_ok=True)
    environment[BACKEND_VARIABLE] = settings.resolved_backend_url
    secret_passphrase = passphrase(secret, environment)
    if not any(name in environment for name in _PASSPHRASE_VARIABLES):
        environment[PASSPHRASE_VARIABLE] = secret_passphrase
    database = Database(settings.resolved_database_url)
    try:
        migrate.migrate(database)
        salt = ensure_installation(database, secret_passphrase, clock, loop).passphrase_salt
        yield environment, shared_budget(settings, database, clock, environment), salt, settings
    finally:
        database.close()


def _project_backend() -> str:
    try:
        return find_project(Path.cwd()).backend_url
    except ConfigError:
        return ""  # the command itself says so, if it needs a project


@contextmanager
def _interrupts(loop: EngineLoop) -> Iterator[None]:
    """^C once: running steps finish and are saved; twice: stop, what ran is recorded as pending.

    SIGTERM does the same. Where no update runs, ^C is what it always is.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        if loop.interrupt() == 0:
            raise KeyboardInterrupt

    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


_WHERE = """\
`stackyard pulumi` works in this folder (Pulumi.yaml), on this installation's backend with its passphrase, or on those
of PULUMI_BACKEND_URL and PULUMI_CONFIG_PASSPHRASE."""
