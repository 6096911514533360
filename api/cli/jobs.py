"""`stackyard jobs`: a client of `/v1/gpu/run` and `/v1/gpu/jobs`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from api.cli.output import Output, OutputOption, print_json, print_rows
from api.cli.values import json_value
from api.v1_client import client
from engine.model.errors import TerminalError

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Run, list, cancel and retry jobs of handlers.")

COLUMNS = ("job_id", "slug", "status", "reason", "attempts", "delayMs", "executionMs", "credits", "createdAt")
WAIT_MS = 300_000
JobId = Annotated[str, typer.Argument(metavar="ID", help="job_…")]


@app.command()
def run(
    slug: Annotated[str, typer.Argument(help="of the handler, or hdl_…")],
    given: Annotated[str, typer.Option("--input", help="JSON; - reads standard input")] = "{}",
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="wait for its end, up to 5 minutes")] = True,
    output: OutputOption = Output.TABLE,
) -> None:
    """Have one job done and print what came out of it."""
    body = {"input": json_value(given)}
    with client() as api:
        if not wait:
            accepted = api.post(f"/gpu/run/{slug}", body)
            print_json(accepted) if output is Output.JSON else typer.echo(accepted["job_id"])
            return
        _show(api.post(f"/gpu/runsync/{slug}", body, wait=WAIT_MS), output)


@app.command("list")
def list_jobs(
    slug: Annotated[str, typer.Option("--slug", "-s", help="of one handler")] = "",
    status: Annotated[str, typer.Option(help="queued, running, succeeded, failed, cancelled, timed_out")] = "",
    most: Annotated[int, typer.Option("--limit", "-n", min=1)] = 50,
    output: OutputOption = Output.TABLE,
) -> None:
    """List jobs, newest first."""
    with client() as api:
        rows = list(api.jobs(most=most, slug=slug, status=status))
    print_rows(rows, COLUMNS, output, empty="no jobs: `stackyard jobs run SLUG --input '{}'`")


@app.command()
def get(job_id: JobId, output: OutputOption = Output.TABLE) -> None:
    """Show one job, with what came out of it."""
    with client() as api:
        _show(api.get(f"/gpu/jobs/{job_id}"), output)


@app.command()
def cancel(job_id: JobId, output: OutputOption = Output.TABLE) -> None:
    """End a job; one that is over is shown as it is."""
    with client() as api:
        job = api.post(f"/gpu/jobs/{job_id}/cancel")
    print_json(job) if output is Output.JSON else print_rows([job], COLUMNS, output, empty="")


@app.command()
def retry(job_id: JobId, output: OutputOption = Output.TABLE) -> None:
    """A new job like one that failed, was cancelled or timed out."""
    with client() as api:
        accepted = api.post(f"/gpu/jobs/{job_id}/retry")
    print_json(accepted) if output is Output.JSON else typer.echo(accepted["job_id"])


def _show(job: dict[str, Any], output: Output) -> None:
    if output is Output.JSON:
        print_json(job)
    else:
        print_rows([job], COLUMNS, output, empty="")
        if "output" in job:
            print_json(job["output"])
    if job["status"] in ("failed", "timed_out", "cancelled"):
        raise TerminalError(f"job {job['job_id']} is {job['status']}: {job.get('error') or job.get('reason') or ''}")
