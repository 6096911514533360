"""`stackyard sandbox`: the DigitalOcean API in a process, alone."""

from __future__ import annotations

import typer

from engine.sandbox.__main__ import main

app = typer.Typer(add_completion=False)


@app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []},
    add_help_option=False,
)
def sandbox(context: typer.Context) -> None:
    """Run a DigitalOcean API in a process, whose Droplets boot; `stackyard sandbox --help` lists its options."""
    main(context.args)
