"""`stackyard deployments`: a client of the HTTP API; STACKYARD_URL and STACKYARD_API_KEY say where and who."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event
from typing import Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from api.cli.output import Output, OutputOption, print_json, print_rows
from api.client import Client, Deployment
from api.settings import load
from engine.model.clock import SystemClock
from engine.model.errors import TerminalError, Unauthenticated

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Create, list, watch, scale and delete deployments.")

POLL_SECONDS = 0.5
SETTLED = frozenset({"active", "failed", "inactive", "asleep"})
COLUMNS = ("id", "name", "status", "model_id", "gpu_type", "region", "ready", "hourly_cost_usd", "created_at")
_COLOURS = {"active": "green", "failed": "red", "degraded": "yellow", "inactive": "dim"}

DeploymentId = Annotated[str, typer.Argument(metavar="ID", help="dep_…")]
WatchOption = Annotated[bool, typer.Option("--watch", "-w", help="show progress until it has settled")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="a name for people")],
    model: Annotated[str, typer.Option("--model", "-m", help="model id")],
    region: Annotated[str, typer.Option("--region", "-r")],
    gpu: Annotated[str | None, typer.Option("--gpu", "-g", help="GPU type; a preset brings its own")] = None,
    replicas: Annotated[int, typer.Option("--replicas", "-n")] = 1,
    preset: Annotated[str | None, typer.Option(help="speed, latency, cost or balanced")] = None,
    watch: WatchOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Create a deployment."""
    with client_from_settings() as client:
        made = client.create_deployment(
            name=name, model_id=model, gpu_type=gpu, region=region, replicas=replicas, preset=preset
        )
        _show(_watched(client, made["id"]) if watch else made, output)


@app.command("list")
def list_deployments(
    inactive: Annotated[bool, typer.Option("--inactive", help="also ones that are gone")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """List deployments, newest first."""
    with client_from_settings() as client:
        rows = list(client.deployments(include_inactive=inactive))
    if output is Output.JSON:
        print_json(rows)
    else:
        print_rows(map(_row, rows), COLUMNS, output, empty="no deployments: `stackyard deployments create --help`")


@app.command()
def get(deployment_id: DeploymentId, watch: WatchOption = False, output: OutputOption = Output.TABLE) -> None:
    """Show one deployment."""
    with client_from_settings() as client:
        _show(_watched(client, deployment_id) if watch else client.deployment(deployment_id), output)


@app.command()
def scale(
    deployment_id: DeploymentId,
    replicas: Annotated[int | None, typer.Argument(help="run exactly this many")] = None,
    minimum: Annotated[int | None, typer.Option("--min")] = None,
    maximum: Annotated[int | None, typer.Option("--max")] = None,
    zero: Annotated[bool | None, typer.Option("--zero/--no-zero", help="run nothing while nobody asks")] = None,
    idle: Annotated[int | None, typer.Option(help="seconds without a request until then")] = None,
    queue_depth: Annotated[int | None, typer.Option(help="add a replica above so many waiting requests each")] = None,
    latency_ms: Annotated[int | None, typer.Option(help="add one above this p95 time to the first token")] = None,
    watch: WatchOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Scale a deployment to a number of replicas, or say between which and by what it scales itself."""
    asked: dict[str, int | bool | None] = {
        "min_replicas": minimum, "max_replicas": maximum, "scale_to_zero": zero, "idle_timeout_seconds": idle,
        "target_queue_depth": queue_depth, "target_latency_ms": latency_ms,
    }  # fmt: skip
    if replicas is not None:
        asked |= {"min_replicas": replicas, "max_replicas": replicas, "replicas": replicas}
    bounds = {name: value for name, value in asked.items() if value is not None}
    if not bounds:
        raise typer.BadParameter("say how many: `stackyard deployments scale ID 2`, or --min and --max")
    with client_from_settings() as client:
        client.scale(deployment_id, **bounds)
        _show(_watched(client, deployment_id) if watch else client.deployment(deployment_id), output)


@app.command()
def delete(deployment_id: DeploymentId, watch: WatchOption = False, output: OutputOption = Output.TABLE) -> None:
    """Tear a deployment down; billing stops at once."""
    with client_from_settings() as client:
        gone = client.delete_deployment(deployment_id)
        _show(_watched(client, deployment_id) if watch else gone, output)


@app.command()
def logs(
    deployment_id: DeploymentId,
    tail: Annotated[int, typer.Option(help="lines per replica")] = 100,
    output: OutputOption = Output.TABLE,
) -> None:
    """Print the last lines of every replica's model server."""
    with client_from_settings() as client:
        found = client.logs(deployment_id, tail=tail)
    if output is Output.JSON:
        print_json(found)
        return
    for one in found:
        for line in one["lines"]:
            typer.echo(f"{one['replica']}  {line}")
        if one["error"]:
            typer.echo(f"{one['replica']}  {one['error']}", err=True)


@app.command()
def cost(deployment_id: DeploymentId, output: OutputOption = Output.TABLE) -> None:
    """Show what a deployment has cost so far."""
    with client_from_settings() as client:
        found = client.cost(deployment_id)
    if output is Output.JSON:
        print_json(found)
    else:
        typer.echo(f"${found['usd']} so far, ${found['hourly_cost_usd']:.2f}/hour now")


@app.command()
def preset(
    deployment_id: DeploymentId,
    name: Annotated[str, typer.Argument(help="speed, latency, cost, balanced, or none")],
    vllm_args: Annotated[list[str] | None, typer.Option("--vllm", help="--max-num-seqs=64; again for more")] = None,
    watch: WatchOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Apply an inference preset; machines are replaced one after the other."""
    with client_from_settings() as client:
        changed = client.set_preset(deployment_id, None if name == "none" else name, vllm_args=vllm_args or None)
        _show(_watched(client, deployment_id) if watch else changed, output)


@app.command()
def sla(
    deployment_id: DeploymentId,
    ttft_ms: Annotated[str | None, typer.Option(help="p95 time to the first token at most, or `none`")] = None,
    tps: Annotated[str | None, typer.Option(help="tokens a second under load at least, or `none`")] = None,
    concurrency: Annotated[str | None, typer.Option(help="requests at the same time at most, or `none`")] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show targets and what missed them, or set them."""
    asked = {"ttft_target_ms": ttft_ms, "throughput_target_tps": tps, "concurrency_limit": concurrency}
    targets = {name: None if value == "none" else value for name, value in asked.items() if value is not None}
    with client_from_settings() as client:
        found = client.set_sla(deployment_id, **targets) if targets else client.sla(deployment_id)
    if output is Output.JSON:
        print_json(found)
        return
    typer.echo(
        f"{found['status']}: {found['breach_count_24h']} missed in 24 hours; targets: first token "
        f"{_or_none(found['ttft_target_ms'], ' ms')}, throughput {_or_none(found['throughput_target_tps'], '/s')}, "
        f"at the same time {_or_none(found['concurrency_limit'])}"
    )
    columns = ("at", "metric", "target", "measured", "source")
    print_rows(found["breaches"], columns, output, empty="nothing was missed")


@app.command()
def metrics(
    deployment_id: DeploymentId,
    window: Annotated[str, typer.Option("--window", "-w", help="1m, 1h or 24h")] = "1h",
    output: OutputOption = Output.TABLE,
) -> None:
    """Show what a deployment did in a window, and does now."""
    with client_from_settings() as client:
        found = client.metrics(deployment_id, window=window)
    if output is Output.JSON:
        print_json(found)
        return
    queue, replicas = found["queue"], found["replicas"]
    typer.echo(
        f"{found['requests']} requests in {window} ({found['errors']} errors, {found['refused']} refused), "
        f"{found['tokens']['prompt']} + {found['tokens']['completion']} tokens, ${found['cost']['usd']}; now "
        f"{found['in_flight']} in flight, {queue['gateway'] + queue['workers']} waiting, "
        f"{replicas['ready']}/{replicas['wanted']} replicas ready"
    )
    rows = [
        {"latency": name.removesuffix("_ms"), **found[name]} for name in ("ttft_ms", "inter_token_ms", "duration_ms")
    ]
    print_rows(rows, ("latency", "p50", "p95", "p99"), output, empty="")


def _or_none(value: float | None, unit: str = "") -> str:
    return "none" if value is None else f"{value:g}{unit}"


def client_from_settings() -> Client:
    settings = load()
    if not settings.api_key:
        raise Unauthenticated("set STACKYARD_API_KEY; `stackyard keys create NAME` makes a key")
    return Client(settings.url or settings.resolved_public_url, settings.api_key)


def _row(deployment: Deployment) -> dict[str, Any]:
    return {**deployment, "ready": f"{deployment['ready_replicas']}/{deployment['replicas']}",
            "created_at": deployment["created_at"][:19]}  # fmt: skip


def _show(deployment: Deployment, output: Output) -> None:
    if output is Output.JSON:
        print_json(deployment)
    else:
        Console().print(picture(deployment, ""))
    if deployment["status"] == "failed":
        raise TerminalError(f"deployment {deployment['id']} failed: {deployment['status_reason']}")


def _watched(client: Client, deployment_id: str) -> Deployment:
    """Show a deployment live on standard error until it has settled; returns it as it then is."""
    clock = SystemClock()
    started = clock.monotonic()
    with Live(console=Console(stderr=True), auto_refresh=True, transient=True) as live:

        def show(deployment: Deployment) -> None:
            live.update(Group(Spinner("dots", text=f"{clock.monotonic() - started:.1f} s"), picture(deployment, "")))

        return until_settled(lambda: client.deployment(deployment_id), show, Event().wait)


def until_settled(
    read: Callable[[], Deployment], show: Callable[[Deployment], None], wait: Callable[[float], Any]
) -> Deployment:
    """Read again and again until nothing is left to happen: settled, and the status is of the newest edit."""
    while True:
        deployment = read()
        show(deployment)
        if is_settled(deployment):
            return deployment
        wait(POLL_SECONDS)


def is_settled(deployment: Deployment) -> bool:
    """Whether the deployment is where its newest specification wants it, or cannot get there."""
    if deployment["status"] == "active":
        return deployment["ready_replicas"] == deployment["replicas"]
    return deployment["status"] in SETTLED


def picture(deployment: Deployment, title: str) -> Group:
    """A deployment for people: facts, then conditions with their reasons."""
    facts = Table.grid(padding=(0, 2))
    status = Text(deployment["status"], style=_COLOURS.get(deployment["status"], "cyan"))
    if deployment["status_reason"]:
        status.append(f"  {deployment['status_reason']}", style="dim")
    for name, value in (
        ("deployment", Text(f"{deployment['id']}  {deployment['name']}")),
        ("status", status),
        ("serves", Text(f"{deployment['model_id']} on {deployment['gpu_type']} in {deployment['region']}")),
        ("replicas", Text(f"{deployment['ready_replicas']} of {deployment['replicas']} ready")),
        ("price", Text(f"${deployment['hourly_cost_usd']:.2f}/hour")),
        ("endpoint", Text(deployment["endpoint_url"])),
    ):
        facts.add_row(Text(name, style="dim"), value)
    conditions = Table.grid(padding=(0, 2))
    for c in deployment["conditions"]:
        mark = Text("✓", style="green") if c["status"] else Text("…", style="yellow")
        conditions.add_row(mark, c["type"], Text(c["message"] or c["reason"], style="dim"))
    return Group(*([Text(title)] if title else []), facts, conditions)
