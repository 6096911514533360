"""`stackyard pods`: a client of `/v1/gpu/pods`, machines by the hour."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli.output import Output, OutputOption, print_json, print_rows
from api.cli.values import login, named_values
from api.v1_client import client

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Rent, stop, start and terminate machines.")

COLUMNS = ("id", "name", "status", "gpuTypeId", "gpuCount", "target", "region", "pricePerHour", "costUsd", "sshCommand")
TYPES = ("id", "displayName", "vramGb", "pricePerHour", "available")
PodId = Annotated[str, typer.Argument(metavar="ID", help="pod_…")]


@app.command("types")
def list_types(output: OutputOption = Output.TABLE) -> None:
    """GPU types, what an hour costs, and what can be had now."""
    with client() as api:
        rows = api.get("/gpu/pods/types")["data"]
    print_rows(rows, TYPES, output, empty="nothing can be rented here: see `stackyard doctor`")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="a name for people")],
    gpu: Annotated[str, typer.Option("--gpu", "-g", help="an id of `stackyard pods types`")],
    image: Annotated[str, typer.Option("--image", "-i")],
    count: Annotated[int, typer.Option("--count", "-n", help="GPUs")] = 1,
    volume_gb: Annotated[int, typer.Option("--volume", help="GB at /workspace, kept by a stop")] = 20,
    disk_gb: Annotated[int, typer.Option("--disk", help="GB outside the volume")] = 20,
    key: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="SSH public key (.pub)")] = None,
    port: Annotated[list[int] | None, typer.Option(help="published beside SSH's; may be repeated")] = None,
    env: Annotated[list[str] | None, typer.Option("--env", "-e", help="NAME=value; may be repeated")] = None,
    mount: Annotated[list[str] | None, typer.Option(help="a stored object, by id or kind/filename")] = None,
    region: Annotated[str, typer.Option("--region", "-r")] = "",
    registry_user: Annotated[str, typer.Option(help="pulls the image; the password is asked for")] = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Rent a machine. Its first hour is set aside now."""
    body: dict[str, Any] = {
        "name": name, "gpuTypeId": gpu, "dockerImage": image, "gpuCount": count, "volumeGb": volume_gb,
        "containerDiskGb": disk_gb, "ports": port or [], "env": named_values(env), "region": region,
        "sshPublicKey": key.read_text().strip() if key else "", "mounts": mount or [],
    }  # fmt: skip
    body |= {"registryAuth": login(registry_user)} if registry_user else {}
    with client() as api:
        _show(api.post("/gpu/pods", body), output)


@app.command("list")
def list_pods(
    terminated: Annotated[bool, typer.Option("--terminated", help="also ones that are gone")] = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """List pods, newest first."""
    with client() as api:
        rows = list(api.pages("/gpu/pods", include_terminated=terminated))
    print_rows(rows, COLUMNS, output, empty="no pods: `stackyard pods create --help`")


@app.command()
def get(pod_id: PodId, output: OutputOption = Output.TABLE) -> None:
    """Show one pod, how to log in, and why nothing moves."""
    with client() as api:
        _show(api.get(f"/gpu/pods/{pod_id}"), output)


@app.command()
def stop(pod_id: PodId, output: OutputOption = Output.TABLE) -> None:
    """Stop a pod; its volume and address are kept."""
    _wish(pod_id, "stop", output)


@app.command()
def start(pod_id: PodId, output: OutputOption = Output.TABLE) -> None:
    """Start a stopped or failed pod; an hour is set aside again."""
    _wish(pod_id, "start", output)


@app.command()
def restart(pod_id: PodId, output: OutputOption = Output.TABLE) -> None:
    """Make the machine of a running pod anew."""
    _wish(pod_id, "restart", output)


@app.command()
def delete(pod_id: PodId, output: OutputOption = Output.TABLE) -> None:
    """Terminate a pod with its volume; all billing stops now."""
    with client() as api:
        _show(api.delete(f"/gpu/pods/{pod_id}"), output)


def _wish(pod_id: str, what: str, output: Output) -> None:
    with client() as api:
        _show(api.post(f"/gpu/pods/{pod_id}/{what}"), output)


def _show(pod: dict[str, Any], output: Output) -> None:
    if output is Output.JSON:
        print_json(pod)
        return
    print_rows([pod], COLUMNS, output, empty="")
    for condition in pod["conditions"]:
        mark = "✓" if condition["status"] else "…"
        typer.echo(f"{mark} {condition['type']}  {condition['message'] or condition['reason']}")
    if pod["statusReason"]:
        typer.echo(pod["statusReason"])
