"""`stackyard bench`: the figures of benchmarks/README.md, measured here and now."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from api.settings import Settings
from api.stack_driver import build_driver
from engine.automation.driver import StackDriver
from engine.deploy.command import EngineLoop
from engine.deploy.installed_plugins import Plugins
from engine.identity.installation_secret import load_or_create
from engine.model.budget import Unlimited
from engine.model.clock import SystemClock
from engine.model.errors import Unavailable
from engine.proof import bench_engine, bench_ledger, bench_peer, bench_stacks
from engine.proof.figures import Figure, dumps
from engine.proof.installation import Installation
from engine.proof.private_postgres import private_postgres
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
    resources: Annotated[int, typer.Option(help="resources in the one large stack")] = 1000,
) -> None:
    """One Droplet, a hundred and three hundred such stacks, and a thousand resources in one stack."""
    clock, loop = SystemClock(), EngineLoop()
    with tempfile.TemporaryDirectory(prefix="stackyard-bench-") as folder, _cloud(Path(folder)) as cloud:
        try:
            bench = bench_stacks.Bench(
                driver=_driver(Path(folder) / "embedded", cloud.url, "embedded", loop),
                cloud_url=cloud.url,
                clock=clock,
                processes=(cloud.pid,),
                rounds=rounds,
                stacks=count,
                at_once=at_once,
                peer=_driver(Path(folder) / "cli", cloud.url, "cli", loop) if _has_official_cloud() else None,
                peer_name="pulumi",
            )
            size = bench_engine.Size(resources=resources, stacks=3 * count, at_once=at_once)
            figures = bench_stacks.run(bench)
            figures |= bench_engine.one_stack(Path(folder), loop, clock, size)
            figures |= bench_peer.same_program(
                Path(folder) / "peer", loop, clock, os.environ, resources=resources, with_peer=_has_official()
            )
            figures |= bench_engine.many_processes(worker_driver, Path(folder), cloud, clock, size)
        finally:
            loop.close()
    if as_json:
        print(dumps(figures))
    else:
        _show(figures, {**bench_stacks.LIMITS, **bench_engine.LIMITS, **bench_peer.LIMITS})


def _has_official() -> bool:
    return shutil.which("pulumi") is not None


def _has_official_cloud() -> bool:
    """Whether the official engine could make a Droplet: it needs the provider's plugin as well."""
    return _has_official() and Plugins(os.environ, Path("Pulumi.yaml")).find("digitalocean", "") is not None


@app.command()
def ledger(
    as_json: Annotated[bool, typer.Option("--json", help="one object: name → value, unit, limit, ratio")] = False,
    records: Annotated[int, typer.Option(help="usage records taken in and priced")] = 1_000_000,
    postings: Annotated[int, typer.Option(help="in the books when balances are asked for")] = 10_000_000,
) -> None:
    """Usage taken in and priced, balances among ten million postings, keys recognised; on a PostgreSQL of its own."""
    size = bench_ledger.Size(records=records, postings=postings)
    try:
        with private_postgres() as url:
            figures = bench_ledger.run(url, SystemClock(), size)
    except Unavailable as err:
        Console(stderr=True).print(err.message)
        raise typer.Exit(1) from err
    if as_json:
        print(json.dumps(bench_ledger.to_json(figures), indent=1))
    else:
        _show_held(bench_ledger.to_json(figures))


def _show_held(figures: Mapping[str, Mapping[str, Any]]) -> None:
    """Figures that are held to a limit; the ratio says how many times better than it they are."""
    table = Table("figure", "value", "limit", "ratio", box=None, padding=(0, 2))
    for name, shown in figures.items():
        style = "red" if shown.get("ratio", 1) < 1 else "green"
        value = f"[{style}]{shown['value']:,} {shown['unit']}[/]"
        table.add_row(name, value, str(shown.get("limit", "")), str(shown.get("ratio", "")))
    Console().print(table)


@contextmanager
def _cloud(folder: Path) -> Iterator[bench_engine.Cloud]:
    """A sandbox that boots at once, without machines."""
    installation = Installation(folder, boot_seconds=0, machines=False)
    try:
        sandbox = installation.start_sandbox()
        yield bench_engine.Cloud(installation.cloud_url, sandbox.pid)
    finally:
        installation.stop()


def _driver(data_dir: Path, cloud_url: str, pulumi: Literal["embedded", "cli"], loop: EngineLoop) -> StackDriver:
    os.environ.setdefault("DIGITALOCEAN_TOKEN", "sandbox-token")
    settings = Settings(data_dir=data_dir, pulumi=pulumi, digitalocean_api_endpoint=cloud_url)
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


def worker_driver(data_dir: Path, cloud_url: str) -> StackDriver:
    """The driver of one worker process of the bench; lives as long as its process."""
    return _driver(data_dir, cloud_url, "embedded", EngineLoop())


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
