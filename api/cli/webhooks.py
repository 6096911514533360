"""`stackyard webhooks`: who is told of a deployment's events; a client of the HTTP API."""

from __future__ import annotations

from typing import Annotated

import typer

from api.cli.deployments import DeploymentId, client_from_settings
from api.cli.output import Output, OutputOption, print_json, print_rows

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Subscribe to the events of deployments.")

WebhookId = Annotated[str, typer.Argument(metavar="WEBHOOK", help="whs_…")]


@app.command()
def add(
    deployment_id: DeploymentId,
    url: Annotated[str, typer.Argument(help="https://…, at a public address")],
    events: Annotated[list[str], typer.Option("--event", "-e", help="deployment.active; again for more")],
    output: OutputOption = Output.TABLE,
) -> None:
    """Subscribe; the signing secret is printed this once."""
    with client_from_settings() as client:
        made = client.subscribe(deployment_id, url, events)
    if output is Output.JSON:
        print_json(made)
    else:
        typer.echo(f"{made['id']}\nsecret: {made['secret']}")


@app.command("list")
def list_webhooks(deployment_id: DeploymentId, output: OutputOption = Output.TABLE) -> None:
    """List subscriptions."""
    with client_from_settings() as client:
        rows = client.subscriptions(deployment_id)
    shown = rows if output is Output.JSON else [row | {"events": ", ".join(row["events"])} for row in rows]
    print_rows(shown, ("id", "url", "events", "created_at"), output, empty="nobody is told")


@app.command()
def delete(deployment_id: DeploymentId, webhook_id: WebhookId) -> None:
    """Unsubscribe."""
    with client_from_settings() as client:
        client.unsubscribe(deployment_id, webhook_id)


@app.command()
def test(deployment_id: DeploymentId, webhook_id: WebhookId, output: OutputOption = Output.TABLE) -> None:
    """Send a ping; `log` says what came of it."""
    with client_from_settings() as client:
        sent = client.ping(deployment_id, webhook_id)
    if output is Output.JSON:
        print_json(sent)
    else:
        typer.echo(sent["delivery_id"])


@app.command()
def rotate(deployment_id: DeploymentId, webhook_id: WebhookId, output: OutputOption = Output.TABLE) -> None:
    """Make a new signing secret; the former one signs beside it for a day."""
    with client_from_settings() as client:
        made = client.rotate_secret(deployment_id, webhook_id)
    if output is Output.JSON:
        print_json(made)
    else:
        typer.echo(made["secret"])


@app.command()
def log(deployment_id: DeploymentId, webhook_id: WebhookId, output: OutputOption = Output.TABLE) -> None:
    """Show what was sent, newest first."""
    with client_from_settings() as client:
        rows = client.deliveries(deployment_id, webhook_id)
    columns = ("id", "event", "state", "attempts", "last_status", "last_error", "next_attempt_at", "created_at")
    print_rows(rows, columns, output, empty="nothing was sent yet")
