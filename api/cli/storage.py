"""`stackyard storage`: a client of `/v1/storage`; `let-in` works on the S3 server itself."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from api.cli.output import Output, OutputOption, print_json, print_rows
from api.settings import load
from api.storage_client import StorageClient
from engine.model.errors import InvalidSpec, Unauthenticated

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Upload, list and delete stored objects.")

COLUMNS = ("id", "kind", "filename", "status", "sizeBytes", "public", "createdAt")
ObjectId = Annotated[str, typer.Argument(metavar="ID", help="obj_…")]


@app.command()
def upload(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True)],
    kind: Annotated[str, typer.Option("--kind", "-k", help="lora, model, dataset, output, …")] = "other",
    private: Annotated[bool, typer.Option("--private", help="make no public URL")] = False,
    resume: Annotated[str, typer.Option(help="id of an upload that broke off (ups_…)")] = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """Upload a file in parts and check it. What breaks off goes on with --resume."""
    console, size = Console(stderr=True), file.stat().st_size

    def tell(upload_id: str, here: int) -> None:
        console.print(f"[dim]{upload_id}: {here} of {size} bytes[/dim]")

    with _client() as client:
        _show(client.upload(file, kind=kind, public=not private, resume=resume, tell=tell), output)


@app.command("list")
def list_objects(
    kind: Annotated[str, typer.Option("--kind", "-k", help="only of this kind")] = "",
    output: OutputOption = Output.TABLE,
) -> None:
    """List objects, newest first."""
    with _client() as client:
        rows = list(client.objects(kind=kind))
    print_rows(rows, COLUMNS, output, empty="nothing is stored yet: `stackyard storage upload FILE`")


@app.command()
def get(object_id: ObjectId, output: OutputOption = Output.TABLE) -> None:
    """Show one object, with the URLs it is read from."""
    with _client() as client:
        _show(client.get(object_id), output)


@app.command()
def delete(object_id: ObjectId, output: OutputOption = Output.TABLE) -> None:
    """Delete an object."""
    with _client() as client:
        _show(client.delete(object_id), output)


@app.command("let-in")
def let_in(
    org: Annotated[str, typer.Argument(help="organisation id")],
    principal: Annotated[list[str] | None, typer.Argument(help="S3 users: ARNs on AWS, access keys elsewhere")] = None,
) -> None:
    """Let these users of the S3 server work in an organisation's bucket, and no others."""
    settings = load()
    place = settings.storage_s3
    if place is None:
        raise InvalidSpec("objects lie on the disk here: set STACKYARD_STORAGE_BACKEND=s3 to have buckets")
    backend = importlib.import_module("engine.storage.s3").S3Backend(
        place, settings.resolved_mounts_cache
    )  # boto3 takes 0.7 s to import
    backend.let_in(org, principal or [])
    Console().print(f"{place.bucket(org)}: {', '.join(principal) if principal else 'nobody but the installation'}")


def _client() -> StorageClient:
    settings = load()
    if not settings.api_key:
        raise Unauthenticated("set STACKYARD_API_KEY to a key made by `stackyard keys create`")
    return StorageClient(settings.url or settings.resolved_public_url, settings.api_key)


def _show(made: dict[str, Any], output: Output) -> None:
    if output is Output.JSON:
        print_json(made)
    else:
        print_rows([made], COLUMNS, output, empty="")
        for name in ("publicUrl", "downloadUrl"):
            if made.get(name):
                Console().print(f"{name}: {made[name]}", soft_wrap=True, highlight=False)
