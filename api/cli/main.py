"""The command `stackyard`: one file per noun, imported when its command runs, so that each starts quickly."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from typing import Any, NoReturn

import typer
from rich.console import Console
from typer.core import TyperGroup

from engine.model.errors import StackyardError

COMMANDS: Mapping[str, str] = {
    "serve": "Run an installation: gateway, API and a worker.",
    "worker": "Run one more worker, here or on another machine.",
    "sandbox": "Run a DigitalOcean API in a process, whose Droplets boot.",
    "demo": "Create, use, scale and destroy a deployment on a sandbox cloud.",
    "bench": "Measure this machine.",
    "deployments": "Create, list, watch, scale and delete deployments.",
    "webhooks": "Subscribe to the events of deployments.",
    "handlers": "Create, list and delete images that execute jobs.",
    "jobs": "Run, list, cancel and retry jobs of handlers.",
    "pods": "Rent, stop, start and terminate machines.",
    "registries": "Store who pulls images of private registries.",
    "models": "Upload, list and delete own weights.",
    "storage": "Upload, list and delete stored objects.",
    "stacks": "Look at the Pulumi stacks behind deployments.",
    "pulumi": "Run Pulumi's command line on the embedded engine.",
    "keys": "Create, list, rotate and revoke API keys, directly in the store.",
    "admin": "What only operators do: accounts, tiers, credit, prices, refunds, audit.",
    "backup": "Write the whole installation to one file.",
    "restore": "Bring an installation back from its file.",
    "doctor": "Check settings, database, keys, cloud and ports.",
}
"""Command → what `--help` says. Each is `api/cli/<name>.py` with a Typer `app`, or a function of its own name."""


class LazyGroup(TyperGroup):
    """Lists commands from `COMMANDS` and imports the one that is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, _, rest = super().resolve_command(ctx, args)
        return name, load(str(name)), rest


def load(name: str) -> Any:
    """The command of `api/cli/<name>.py`."""
    module = importlib.import_module(f"api.cli.{name}")
    app = getattr(module, "app", None)
    if app is None:
        app = typer.Typer(add_completion=False, rich_markup_mode="rich")
        app.command(name)(getattr(module, name))
    return typer.main.get_command(app)


def build() -> typer.Typer:
    """The application with every command's name and one line of help."""
    app = typer.Typer(
        cls=LazyGroup, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="A self-hosted GPU cloud: every model deployment is a Pulumi stack.",
    )  # fmt: skip
    for name, text in COMMANDS.items():
        app.command(name, help=text)(lambda: None)
    return app


def main() -> None:
    """Run; a known failure is one red sentence and exit code 1."""
    try:
        build()()
    except StackyardError as err:
        _refuse(err.message)
    except OSError as err:
        if err.filename is None:  # no file somebody named: a fault of ours, with its traceback
            raise
        _refuse(f"{err.filename}: {err.strerror}")


def _refuse(sentence: str) -> NoReturn:
    Console(stderr=True).print(sentence, style="red", highlight=False, markup=False, soft_wrap=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
