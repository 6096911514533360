"""`stackyard worker`: one more worker for an installation, here or on another machine."""

from __future__ import annotations

import socket
from typing import Annotated

import typer

from api import logs
from api.settings import load
from api.worker import run_worker
from engine.model import ids


def worker(
    name: Annotated[str, typer.Option(help="name in the lease table; empty: host name and a random part")] = "",
) -> None:
    """Run a worker until Ctrl-C. It finds the installation by STACKYARD_DATABASE_URL and STACKYARD_SECRET_KEY."""
    settings = load()
    logs.configure(settings.data_dir, "worker", settings.log_level)
    run_worker(settings, name or f"{socket.gethostname()}-{ids.random_text(10)}")
