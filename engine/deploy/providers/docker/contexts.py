"""Docker contexts: where `docker context` keeps a daemon's address and certificates. Only reads files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from engine.deploy.providers.docker.hosts import HostSettings


def context_settings(name: str, folder: Path) -> HostSettings:
    """The daemon a context names.

    Args:
        folder: of Docker's configuration, `~/.docker`.

    Raises:
        ValueError: there is no such context, or it names no daemon.
    """
    digest = hashlib.sha256(name.encode()).hexdigest()
    file = folder / "contexts" / "meta" / digest / "meta.json"
    try:
        endpoint = json.loads(file.read_text())["Endpoints"]["docker"]
        address = endpoint["Host"]
    except (OSError, ValueError, KeyError, TypeError) as err:
        raise ValueError(f"there is no Docker context {name!r} in {folder}: see `docker context ls`") from err
    certificates = folder / "contexts" / "tls" / digest / "docker"
    return HostSettings(address=str(address), certificate_folder=str(certificates) if certificates.is_dir() else "")
