"""`stackyard demo`: the whole life of one deployment, shown in a terminal."""

from __future__ import annotations

import shutil
import signal
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from engine.model.clock import Clock, SystemClock
from engine.proof.demo import Demo, DemoFailed, DemoResult
from engine.proof.installation import Installation, InstallationError, is_running

DATA_DIR = Path(".stackyard/demo")


class TerminalNarrator:
    """Shows the demo as it happens; a phase is printed when it changes."""

    def __init__(self, console: Console, clock: Clock) -> None:
        self._console, self._clock, self._start = console, clock, clock.monotonic()
        self._shown = ""
        self._streaming = False

    def elapsed(self) -> float:
        """Seconds since the start."""
        return self._clock.monotonic() - self._start

    def step(self, title: str) -> None:
        self._end_stream()
        self._shown = ""
        self._console.print(f"\n[bold cyan]▸[/] [bold]{title}[/]", highlight=False)

    def say(self, text: str) -> None:
        self._end_stream()
        self._console.print(f"  {text}", style="dim", highlight=False, markup=False)

    def phase(self, deployment: dict[str, Any]) -> None:
        waiting = next((c for c in deployment["conditions"] if not c["status"]), None)
        line = f"{deployment['status']:<13}{deployment['ready_replicas']}/{deployment['replicas']} ready"
        if waiting:
            line += f"   {waiting['type']}: {waiting['message'] or waiting['reason']}"
        if line != self._shown:
            self._shown = line
            self._console.print(f"  [dim]{self.elapsed():6.1f} s[/]  {line}", highlight=False)

    def token(self, text: str) -> None:
        if not self._streaming:
            self._console.print(f"  [dim]{self.elapsed():6.1f} s  first token[/]\n", highlight=False)
        self._streaming = True
        self._console.print(text, end="", style="green", highlight=False, markup=False, soft_wrap=True)

    def stack(self, stack: dict[str, Any]) -> None:
        table = Table("type", "name", "id", box=None, padding=(0, 2), header_style="dim")
        for resource in stack["resources"]:
            table.add_row(resource["type"], resource["name"], resource.get("id") or "")
        self._console.print(table)
        for name, value in stack["outputs"].items():
            self._console.print(f"  [dim]{name}[/] = {value}", highlight=False)

    def _end_stream(self) -> None:
        if self._streaming:
            self._console.print()
        self._streaming = False


def demo(
    keep: Annotated[bool, typer.Option(envvar="DEMO", parser=lambda v: str(v).lower() in ("keep", "1", "true"),
                                       metavar="keep", help="leave it running and print the URLs")] = False,
    boot_seconds: Annotated[float, typer.Option(help="how long a sandbox Droplet boots")] = 0.5,
) -> None:  # fmt: skip
    """Create, use, scale and destroy a deployment on a cloud in a process, and check each step."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was started is stopped
    console = Console()
    clock = SystemClock()
    narrator = TerminalNarrator(console, clock)
    data_dir = _fresh_data_dir(clock.now())
    try:
        narrator.step("stackyard serve, on SQLite, the embedded engine and a sandbox cloud")
        with Installation(data_dir, boot_seconds=boot_seconds) as installation:
            narrator.say(f"gateway {installation.url}   cloud {installation.cloud_url}   data {data_dir}")
            result = Demo(installation, narrator, narrator.elapsed).run(keep=keep)
            _summary(console, result)
            if keep:
                _keep(console, installation)
    except (DemoFailed, InstallationError) as err:
        console.print(f"\n[bold red]the demo failed:[/] {err}", highlight=False)
        raise typer.Exit(1) from err


def _fresh_data_dir(now: datetime) -> Path:
    for old in DATA_DIR.glob("run-*"):
        if not is_running(old):
            shutil.rmtree(old, ignore_errors=True)
    return DATA_DIR / f"run-{now:%H%M%S}"


def _summary(console: Console, result: DemoResult) -> None:
    cost = f", cost ${result.cost_usd}" if result.cost_usd else ""
    console.print(
        f"\n[bold green]✓[/] active after {result.active_seconds:.1f} s, first token after "
        f"{result.first_token_seconds:.1f} s ({result.tokens} pieces), all of it {result.total_seconds:.1f} s{cost}",
        highlight=False,
    )


def _keep(console: Console, installation: Installation) -> None:
    pids = " ".join(map(str, reversed(installation.leave_running())))
    console.print(
        f"\nStill running. Gateway [bold]{installation.url}[/], cloud [bold]{installation.cloud_url}[/]\n"
        f"  export STACKYARD_URL={installation.url} STACKYARD_API_KEY={installation.api_key}\n"
        f'  curl -H "Authorization: Bearer $STACKYARD_API_KEY" $STACKYARD_URL/api/v1/public/deployments\n'
        f"Stop it with: kill {pids}",
        highlight=False,
        soft_wrap=True,
    )
