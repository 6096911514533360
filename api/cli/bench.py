"""`stackyard bench`: the figures of benchmarks/README.md, measured here and now."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from api.settings import Settings
from api.stack_driver import build_driver
from engine.automation.driver import StackDriver
from engine.deploy.command import EngineLoop
from engine.identity.installation_secret import load_or_create
from engine.model.budget import Unlimited
from engine.model.clock import SystemClock
from engine.proof import bench_stacks
from engine.proof.figures import Figure, dumps
from engine.proof.installation import Installation
from engine.store.database import Database
from engine.store.migrate import migrate

app = typer.Typer(help="Measure this machine; beside the official engine where `pulumi` is installed.")


@app.callback()
def main() -> None:
    """Keeps `bench` a group with nouns."""


@app.command()
def stacks(
    as_json: Annotated[bool, typer.Option("--json", help="one object: name → value, unit, peer")] = False,
    rounds: Annotated[int, typer.Option(help="operations per figure; the median counts")] = 7,
    count: Annotated[int, typer.Option(help="stacks created at once")] = 100,
    at_once: Annotated[int, typer.Option(help="of them at the same time")] = 16,
) -> None:
    """Create, leave, preview and destroy one Droplet; create a hundred such stacks."""
    with tempfile.TemporaryDirectory(prefix="stackyard-bench-") as folder, _cloud(Path(folder)) as cloud:
        loop = EngineLoop()
        try:
            bench = bench_stacks.Bench(
                driver=_driver(Path(folder), cloud.cloud_url, "embedded", loop),
                cloud_url=cloud.cloud_url,
                clock=SystemClock(),
                processes=(cloud.sandbox.pid,) if cloud.sandbox else (),
                rounds=rounds,
                stacks=count,
                at_once=at_once,
                peer=_driver(Path(folder), cloud.cloud_url, "cli", loop) if shutil.which("pulumi") else None,
                peer_name="pulumi",
            )
            figures = bench_stacks.run(bench)
        finally:
            loop.close()
    if as_json:
        print(dumps(figures))
    else:
        _show(figures, bench_stacks.LIMITS)


@contextmanager
def _cloud(folder: Path) -> Iterator[Installation]:
    """A sandbox that boots at once, without machines."""
    installation = Installation(folder, boot_seconds=0, machines=False)
    try:
        installation.start_sandbox()
        yield installation
    finally:
        installation.stop()


def _driver(folder: Path, cloud_url: str, pulumi: Literal["embedded", "cli"], loop: EngineLoop) -> StackDriver:
    os.environ.setdefault("DIGITALOCEAN_TOKEN", "sandbox-token")
    settings = Settings(data_dir=folder / pulumi, pulumi=pulumi, digitalocean_api_endpoint=cloud_url)
    settings.data_dir.mkdir()
    database = Database(settings.resolved_database_url)
    migrate(database)
    return build_driver(
        settings,
        database,
        SystemClock(),
        secret=load_or_create(settings.data_dir, settings.secret_key),
        budget=Unlimited(),
        executor_id="bench",
        loop=loop,
    )


def _show(figures: Mapping[str, Figure], limits: Mapping[str, float]) -> None:
    table = Table("figure", "value", "limit", "official engine", "ratio", box=None, padding=(0, 2))
    for name, figure in figures.items():
        shown = figure.to_json()
        style = "green" if figure.value <= limits[name] else "red"
        table.add_row(
            name,
            f"[{style}]{figure.value:.3f} {figure.unit}[/]",
            f"{limits[name]:g}",
            str(shown.get("peer_value", "")),
            str(shown.get("ratio", "")),
        )
    Console().print(table)
