"""Keeps workers of other machines off a `file://` backend: all work in one folder, or none of them finds the stacks.

A worker elsewhere would find its own, empty folder behind the same URL, and build what exists once more. The folder has
a name in it, and the database remembers which one this installation's stacks are in. Not a lock (`backend/locks.py`).
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path

from engine.deploy.backend.file import FileBlobs, folder_id
from engine.model import ids
from engine.model.clock import Clock
from engine.model.errors import Conflict
from engine.store import leases
from engine.store.database import Database

_LEASE = "state-folder"
_FOREVER_SECONDS = 100 * 365 * 86400.0


def claim(backend_url: str, database: Database, clock: Clock, environment: Mapping[str, str]) -> None:
    """Return if this is the folder of the installation's stacks; the first one ever seen becomes it.

    Raises:
        Conflict: it is another folder; the message says what to do.
        BackendError: it is missing.
    """
    if not backend_url.startswith("file://"):
        return
    blobs = FileBlobs.open(backend_url, Path.cwd(), environment.get("HOME", ""))
    name = folder_id(blobs, ids.new_id("folder"))
    with database.write() as session:
        lease = leases.acquire(session, _LEASE, name, _FOREVER_SECONDS, clock.now())
    if lease is None:
        raise Conflict(
            f"{backend_url} on {socket.gethostname()} is not the folder this installation's stacks are in: a file:// "
            "backend serves the workers of one machine. For workers on several, set STACKYARD_BACKEND_URL on all of "
            "them to an s3:// or postgres:// backend; to move to this machine, copy the old folder's .pulumi here first"
        )
