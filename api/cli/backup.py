"""`stackyard backup`: the whole installation in one file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from api import backup as backups
from api.settings import load
from engine.model.clock import SystemClock

PASSPHRASE = "STACKYARD_BACKUP_PASSPHRASE"


def backup(
    file: Annotated[Path, typer.Argument(help="the file to write, for example stackyard-2026-11-21.zip")],
) -> None:
    """Write database, stack state and secrets to FILE; may run while the installation does.

    With STACKYARD_BACKUP_PASSPHRASE set the secrets in it are sealed; keep that passphrase elsewhere.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    made = backups.write(
        load(), file, now=SystemClock().now(), environment=os.environ, passphrase=os.environ.get(PASSPHRASE, "")
    )
    rows = sum(made.tables.values())
    console.print(f"[green]✓[/] {made.path}: {rows} rows of {len(made.tables)} tables, {made.state_files} state files")
    if not made.sealed:
        console.print(f"[yellow]•[/] its secrets are readable: guard the file, or set {PASSPHRASE} and make it again")
