"""`stackyard serve`: one installation on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from api import logs
from api.settings import load
from api.supervisor import serve as supervise
from engine.model.clock import SystemClock


def serve(
    host: Annotated[str | None, typer.Option(help="address of the public port")] = None,
    port: Annotated[int | None, typer.Option(help="the public port; 0 takes a free one")] = None,
    data_dir: Annotated[Path | None, typer.Option(help="state, database, keys and logs")] = None,
    port_file: Annotated[Path | None, typer.Option(help="write the public port here once it listens")] = None,
    worker: Annotated[bool, typer.Option(help="run a worker too")] = True,
) -> None:
    """Run an installation: the gateway on the public port, the API, and a worker. Ctrl-C stops it."""
    settings = load(host=host, port=port, data_dir=data_dir)
    logs.configure(settings.data_dir, "supervisor", settings.log_level)
    console = Console(stderr=True, highlight=False, soft_wrap=True)

    def announce(url: str) -> None:
        console.print(f"[bold green]ready[/]  {url}   API documentation {url}/docs   logs {settings.data_dir}/logs")

    supervise(settings, SystemClock(), with_worker=worker, port_file=port_file, announce=announce)
