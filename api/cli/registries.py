"""`stackyard registries`: a client of `/v1/registries`, who an organisation is to image registries."""

from __future__ import annotations

from typing import Annotated

import typer

from api.cli.output import Output, OutputOption, print_json, print_rows
from api.cli.values import login as asked_login
from api.v1_client import client

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Store who pulls images of private registries.")

COLUMNS = ("registry", "username", "createdAt", "updatedAt")
Registry = Annotated[str, typer.Argument(help="its host, like ghcr.io; docker.io for Docker Hub")]


@app.command()
def login(
    registry: Registry,
    username: Annotated[str, typer.Option("--username", "-u")],
    output: OutputOption = Output.TABLE,
) -> None:
    """Store credentials; the password is asked for, or taken from STACKYARD_REGISTRY_PASSWORD."""
    with client() as api:
        stored = api.put(f"/registries/{registry}", asked_login(username))
    print_json(stored) if output is Output.JSON else print_rows([stored], COLUMNS, output, empty="")


@app.command("list")
def list_registries(output: OutputOption = Output.TABLE) -> None:
    """List registries there are credentials for."""
    with client() as api:
        rows = api.get("/registries")["data"]
    print_rows(rows, COLUMNS, output, empty="none: images are pulled as nobody; `stackyard registries login --help`")


@app.command()
def logout(registry: Registry) -> None:
    """Forget credentials."""
    with client() as api:
        api.delete(f"/registries/{registry}")
