"""Builds provider plugins written in Go, once, into a cache outside the checkout."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.fakes.machine_lock import cache_folder, machine_lock

_BUILD_SECONDS = 600


class GoMissing(Exception):
    """There is no such plugin here and no way to build one; says what to do."""


def build(source: Path) -> Path:
    """The program of a folder with a `main.go`; built again only if its sources change.

    Raises:
        GoMissing: neither built nor buildable.
    """
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sorted(source.iterdir()) if path.is_file()))
    program = cache_folder() / f"{source.name}-{digest.hexdigest()[:16]}"
    with machine_lock(program.name):
        if not program.exists():
            _build(source, program)
    return program


def _build(source: Path, program: Path) -> None:
    if shutil.which("go") is None:
        raise GoMissing(f"no {source.name}: Go builds it for the tests, and `go` is not on PATH")
    with tempfile.TemporaryDirectory(dir=program.parent) as draft:
        built = Path(draft) / "program"
        done = subprocess.run(
            ["go", "build", "-o", str(built), "."], cwd=source, capture_output=True, text=True,
            timeout=_BUILD_SECONDS, check=False,
        )  # fmt: skip
        if done.returncode:
            raise GoMissing(f"{source.name} could not be built: {done.stderr.strip()[-300:]}")
        os.replace(built, program)
