"""`stackyard bench`: the figures of benchmarks/README.md, measured here and now."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
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
from engine.model.errors import StackyardError, Unavailable
from engine.proof import (
    bench_cold,
    bench_containers,
    bench_engine,
    bench_gateway,
    bench_jobs,
    bench_ledger,
    bench_peer,
    bench_stacks,
    bench_upload,
)
from engine.proof.figures import Figure, dumps
from engine.proof.installation import Installation, InstallationError
from engine.proof.private_postgres import private_postgres
from engine.store.database import Database
from engine.store.migrate import migrate

_QUIET_LOAD = 0.5
"""A machine with more to do than this gives latencies of its scheduler, not of what is measured."""

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
            thousand_s = figures["thousand_create_s"].value
            figures |= bench_engine.large_stack(Path(folder), loop, clock, size, thousand_s)
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


@app.command()
def jobs(
    as_json: Annotated[bool, typer.Option("--json", help="one object: name → value, unit, limit, peer")] = False,
    submissions: Annotated[int, typer.Option(help="jobs accepted while no worker is there")] = 6000,
    count: Annotated[int, typer.Option(help="jobs from submission to result, ours and Celery's")] = 4000,
    celery_python: Annotated[str, typer.Option(help="a Python that has celery and redis; needs redis-server")] = "",
    docker_host: Annotated[str, typer.Option(help="unix:///var/run/docker.sock, for what needs containers")] = "",
    handler_image: Annotated[str, typer.Option(help="an image on that host that answers POST /run on 8000")] = "",
    upload_bytes: Annotated[int, typer.Option(help="size of the measured upload; 0: none is made")] = 0,
) -> None:
    """Jobs accepted, begun and done, beside Celery with Redis; cold starts, an upload's memory and one container."""
    clock = SystemClock()
    figures = bench_jobs.run(clock, bench_jobs.Size(submissions=submissions, jobs=count), celery_python=celery_python)
    figures |= bench_jobs.none(("cold_start_p95_s", "container_up_s"), "s", "needs --docker-host and --handler-image")
    figures |= bench_jobs.none(("upload_rss_mib",), "MiB", "needs --upload-bytes (5000000000 is what is promised)")
    if docker_host and handler_image:
        figures |= _measured("cold_start_p95_s", "s", partial(_cold_starts, docker_host, handler_image, clock))
        figures |= _measured("container_up_s", "s", partial(_container_up, docker_host, handler_image, clock))
    if upload_bytes:
        figures |= _measured("upload_rss_mib", "MiB", partial(_upload, upload_bytes, clock))
    shown = bench_jobs.to_json(figures)
    if as_json:
        print(json.dumps(shown, indent=1))
    else:
        _show_held(shown)


@app.command()
def gateway(
    as_json: Annotated[bool, typer.Option("--json", help="one object: name → value, unit, limit, peer")] = False,
    litellm_python: Annotated[str, typer.Option(help="a Python of its own that has litellm[proxy]")] = "",
    rounds: Annotated[int, typer.Option(help="measurements per figure; the median counts")] = 3,
) -> None:
    """Requests a second, added latency and memory of the gateway, beside LiteLLM, nginx and a bare proxy.

    About three minutes. Wants a machine with nothing else running: other work falls on latencies most.
    """
    if (load := os.getloadavg()[0]) > _QUIET_LOAD:
        Console(stderr=True).print(f"[yellow]other work is running here (load {load:.1f}): only ratios will tell[/]")
    try:
        size = bench_gateway.Size(rounds=rounds)
        figures = bench_gateway.run(SystemClock(), size, litellm_python=litellm_python)
    except (StackyardError, InstallationError) as err:
        Console(stderr=True).print(str(err))
        raise typer.Exit(1) from err
    shown = bench_gateway.to_json(figures)
    if as_json:
        print(json.dumps(shown, indent=1))
    else:
        _show_held(shown)


def _measured(name: str, unit: str, measure: Callable[[], Mapping[str, Figure]]) -> dict[str, bench_jobs.Found]:
    """Figures of another module; what kept it from measuring stands in the place of the one that was promised."""
    try:
        return {key: bench_jobs.Found(figure.value, figure.unit) for key, figure in measure().items()}
    except (StackyardError, InstallationError, httpx.HTTPError, OSError) as err:
        return bench_jobs.none((name,), unit, str(err))


def _cold_starts(docker_host: str, image: str, clock: SystemClock) -> Mapping[str, Figure]:
    hosts = [{"name": "bench", "host": docker_host, "address": "127.0.0.1", "pools": {"CPU": 2}}]
    environment = {"STACKYARD_DOCKER_HOSTS": json.dumps(hosts)}
    with tempfile.TemporaryDirectory(prefix="stackyard-bench-") as folder:
        server = Installation(Path(folder), machines=False, environment=environment)
        with server, server.client(120) as client:
            return bench_cold.cold_starts(client, clock, image=image)


def _container_up(docker_host: str, image: str, clock: SystemClock) -> Mapping[str, Figure]:
    loop = EngineLoop()
    with tempfile.TemporaryDirectory(prefix="stackyard-bench-") as folder:
        try:
            driver = _driver(Path(folder) / "docker", "http://127.0.0.1:9", "embedded", loop)
            return bench_containers.container_up(driver, clock, host=docker_host, image=image, command=[])
        finally:
            loop.close()


def _upload(size_bytes: int, clock: SystemClock) -> Mapping[str, Figure]:
    with (
        tempfile.TemporaryDirectory(prefix="stackyard-bench-") as folder,
        Installation(Path(folder), machines=False) as server,
    ):
        return bench_upload.figures(server, clock, size_bytes=size_bytes)


def _show_held(figures: Mapping[str, Mapping[str, Any]]) -> None:
    """Figures that are held to a limit; the ratio says how many times better than it they are."""
    table = Table("figure", "value", "limit", "ratio", box=None, padding=(0, 2))
    for name, shown in figures.items():
        style = "green" if shown.get("held", shown.get("ratio", 1) >= 1) else "red"
        missing = f"[yellow]not measured: {shown.get('reason', '')}[/]"
        value = missing if shown["value"] is None else f"[{style}]{shown['value']:,} {shown['unit']}[/]"
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
