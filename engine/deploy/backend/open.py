"""From a backend URL to the backend behind it. Understands schemes, not what is stored."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from engine.deploy.backend.blobs import BackendError
from engine.deploy.backend.file import FileBlobs, FileLogs
from engine.deploy.backend.segments import SegmentedLogs
from engine.deploy.backend.stacks import CLI_HINT, Backend

_REMOTE = {"s3": "engine.deploy.backend.s3", "postgres": "engine.deploy.backend.postgres"}
"""Scheme → the module whose `open_blobs` knows it; their clients cost memory that only who uses one should pay."""


def open_backend(url: str, cwd: Path, env: Mapping[str, str]) -> Backend:
    """The backend of a URL.

    Args:
        cwd: what a relative `file://` path is relative to.
        env: HOME, and what the clients of S3 and PostgreSQL read (`AWS_…`, `PG…`).

    Raises:
        BackendError: an unknown scheme, a place that cannot be reached, or a layout this engine does not know.
    """
    if not url:
        raise BackendError("no backend is set: set PULUMI_BACKEND_URL=file:///path/to/a/folder")
    scheme = urlsplit(url).scheme
    if scheme == "file":
        files = FileBlobs.open(url, cwd, env.get("HOME", ""))
        backend = Backend(files, FileLogs(files))
    elif scheme in _REMOTE:
        blobs = importlib.import_module(_REMOTE[scheme]).open_blobs(url, env)
        backend = Backend(blobs, SegmentedLogs(blobs))
    else:
        raise BackendError(
            f"the embedded engine has no backend for {url!r}, only file://, s3:// and postgres://; {CLI_HINT}"
        )
    backend.check_layout()
    return backend
