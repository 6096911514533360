"""`stackyard restore`: an installation back from its file, on an empty machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from api import backup as backups
from api.cli.backup import PASSPHRASE
from api.settings import load


def restore(file: Annotated[Path, typer.Argument(help="what `stackyard backup` wrote")]) -> None:
    """Bring database, stack state and secrets back from FILE; nothing that exists is touched.

    Machines that run are taken up again; whatever was made after the backup is swept, whatever went is made anew.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    back = backups.restore(load(), file, environment=os.environ, passphrase=os.environ.get(PASSPHRASE, ""))
    rows = sum(back.tables.values())
    console.print(
        f"[green]✓[/] {rows} rows of {len(back.tables)} tables and {back.state_files} state files, as of {back.made_at}"
    )
    if back.environment_file:
        console.print(
            f"[yellow]•[/] set what is in {back.environment_file} before `stackyard serve`, then remove the file"
        )
    console.print("start it: `stackyard serve`")
