"""`stackyard handlers`: a client of `/v1/deployments`, images whose workers execute jobs."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from api.cli.jobs import run as run_job
from api.cli.output import Output, OutputOption, print_json, print_rows
from api.cli.values import login, named_values
from api.v1_client import client

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Create, list and delete images that execute jobs.")

COLUMNS = ("id", "slug", "status", "dockerImage", "gpuTypes", "workers", "createdAt")
WORKERS = ("name", "status", "gpuType", "host", "jobsInFlight", "protocol", "reason")
Slug = Annotated[str, typer.Argument(metavar="SLUG", help="its slug, or hdl_…")]


@app.command()
def create(
    slug: Annotated[str, typer.Argument(help="names it in URLs")],
    image: Annotated[str, typer.Option("--image", "-i")],
    gpus: Annotated[str, typer.Option("--gpus", "-g", help="GPU pools in order of preference, comma-separated")],
    workers_min: Annotated[int, typer.Option("--min")] = 0,
    workers_max: Annotated[int, typer.Option("--max")] = 3,
    idle_seconds: Annotated[int, typer.Option(help="how long a worker stays without work")] = 5,
    env: Annotated[list[str] | None, typer.Option("--env", "-e", help="NAME=value; may be repeated")] = None,
    secret: Annotated[list[str] | None, typer.Option(help="NAME=value, sealed; NAME alone is read from here")] = None,
    mount: Annotated[list[str] | None, typer.Option(help="a stored object, by id or kind/filename")] = None,
    command: Annotated[str, typer.Option(help="instead of the image's own")] = "",
    registry_user: Annotated[str, typer.Option(help="pulls the image; the password is asked for")] = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Deploy an image. Its first job starts a worker."""
    body: dict[str, Any] = {
        "slug": slug, "dockerImage": image, "gpuTypes": gpus, "workersMin": workers_min, "workersMax": workers_max,
        "idleTimeoutSeconds": idle_seconds, "env": named_values(env), "secrets": named_values(secret),
        "mounts": mount or [],
    }  # fmt: skip
    body |= {"startCommand": command} if command else {}
    body |= {"registryAuth": login(registry_user)} if registry_user else {}
    with client() as api:
        _show(api.post("/deployments", body), output)


@app.command("list")
def list_handlers(
    inactive: Annotated[bool, typer.Option("--inactive", help="also ones that are gone")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """List them, newest first."""
    with client() as api:
        rows = list(api.pages("/deployments", include_inactive=inactive))
    shown = rows if output is Output.JSON else [_row(row) for row in rows]
    print_rows(shown, COLUMNS, output, empty="none yet: `stackyard handlers create --help`")


@app.command()
def get(slug: Slug, output: OutputOption = Output.TABLE) -> None:
    """Show one, with its workers and why nothing moves."""
    with client() as api:
        _show(api.get(f"/deployments/{slug}"), output)


@app.command()
def run(
    slug: Slug,
    given: Annotated[str, typer.Option("--input", help="JSON; - reads standard input")] = "{}",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="wait for its end, up to 5 minutes")] = True,
    output: OutputOption = Output.TABLE,
) -> None:
    """Have one job done; the same as `stackyard jobs run`."""
    run_job(slug, given, wait, output)


@app.command()
def purge(slug: Slug, output: OutputOption = Output.TABLE) -> None:
    """End everything that waits in its queue; what runs goes on."""
    with client() as api:
        answer = api.post(f"/gpu/{slug}/purge-queue")
    print_json(answer) if output is Output.JSON else typer.echo(f"{answer['removed']} jobs ended")


@app.command()
def delete(slug: Slug, output: OutputOption = Output.TABLE) -> None:
    """Tear one down, with its workers and its queue."""
    with client() as api:
        _show(api.delete(f"/deployments/{slug}"), output)


def _row(handler: dict[str, Any]) -> dict[str, Any]:
    ready = f"{handler['workersReady']}/{len(handler['workers'])}"
    return {**handler, "gpuTypes": ",".join(handler["gpuTypes"]), "workers": ready,
            "createdAt": handler["createdAt"][:19]}  # fmt: skip


def _show(handler: dict[str, Any], output: Output) -> None:
    if output is Output.JSON:
        print_json(handler)
        return
    print_rows([_row(handler)], COLUMNS, output, empty="")
    if handler["workers"]:
        print_rows(handler["workers"], WORKERS, output, empty="")
    for condition in handler["conditions"]:
        mark = "✓" if condition["status"] else "…"
        typer.echo(f"{mark} {condition['type']}  {condition['message'] or condition['reason']}")
    if handler["statusReason"]:
        typer.echo(handler["statusReason"])
