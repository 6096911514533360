"""`stackyard models`: a client of `/models`, own weights."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from api.cli.output import Output, OutputOption, print_json, print_rows
from api.model_client import ModelClient
from api.settings import load
from engine.model.errors import Unauthenticated

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Upload, list and delete own weights (GGUF files).")

COLUMNS = ("id", "model", "deployment_id", "status", "size_bytes", "context_tokens", "memory_gib", "created_at")
ModelId = Annotated[str, typer.Argument(metavar="ID", help="byom_…")]
OfDeployment = Annotated[str, typer.Option("--deployment", "-d", help="dep_…")]


@app.command()
def upload(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True)],
    name: Annotated[str, typer.Argument(help="requests name the model byom:NAME")],
    deployment: OfDeployment = "",
    resume: Annotated[str, typer.Option(help="id of an upload that broke off (ups_…)")] = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Upload a GGUF file in parts; what breaks off goes on with --resume. Without --deployment it is kept for later."""
    console, size = Console(stderr=True), file.stat().st_size

    def tell(upload_id: str, here: int) -> None:
        console.print(f"[dim]{upload_id}: {here} of {size} bytes[/dim]")

    with _client() as client:
        _show(client.upload(file, name, deployment=deployment, resume=resume, tell=tell), output)


@app.command("list")
def list_models(deployment: OfDeployment = "", output: OutputOption = Output.TABLE) -> None:
    """List own weights, newest first."""
    with _client() as client:
        rows = list(client.models(deployment=deployment))
    print_rows(rows, COLUMNS, output, empty="there are no own weights yet: `stackyard models upload FILE NAME`")


@app.command()
def get(model_id: ModelId, output: OutputOption = Output.TABLE) -> None:
    """Show one model, and how far it is on each machine."""
    with _client() as client:
        _show(client.get(model_id), output)


@app.command()
def delete(model_id: ModelId, output: OutputOption = Output.TABLE) -> None:
    """Delete a model: machines end it, its file is removed."""
    with _client() as client:
        _show(client.delete(model_id), output)


def _client() -> ModelClient:
    settings = load()
    if not settings.api_key:
        raise Unauthenticated("set STACKYARD_API_KEY to a key made by `stackyard keys create`")
    return ModelClient(settings.url or settings.resolved_public_url, settings.api_key)


def _show(model: dict[str, Any], output: Output) -> None:
    if output is Output.JSON:
        print_json(model)
        return
    print_rows([model], COLUMNS, output, empty="")
    console = Console()
    if model["reason"]:
        console.print(model["reason"], soft_wrap=True, highlight=False)
    for place in model["places"]:
        line = f"{place['deployment_id']} {place['replica']}: {place['status']} {place['reason']}"
        console.print(line, soft_wrap=True, highlight=False)
