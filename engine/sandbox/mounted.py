"""Stored objects that a machine's container mounts, made files below the machine's folder: what its start script does.

A machine here has no file system of its own: the command that stands in for its image finds them at `{root}/<path>`.
"""

from __future__ import annotations

import hashlib
import json
import urllib.request
from pathlib import Path
from typing import Any

from engine.model.worker import MOUNTS_PATH
from engine.sandbox.user_data import inside

_CHUNK_BYTES = 1024 * 1024
_SECONDS = 60


def fetch_mounts(root: Path) -> str:
    """Fetch what is not there yet; returns "", or why the container cannot start, in the script's words. Blocks."""
    listed = inside(root, MOUNTS_PATH)
    if not listed.exists():
        return ""
    for mount in json.loads(listed.read_text()):
        if why := _fetch(root, mount):
            return f"stackyard: the stored object {mount['object_id']} {why}\n"
    return ""


def _fetch(root: Path, mount: dict[str, Any]) -> str:
    target = inside(root, mount["path"])
    if target.exists():
        return ""
    if not mount["url"]:
        return "was deleted, and this deployment mounts it"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the gateway is on this machine
    part, digest, size = target.with_name(f"{target.name}.part"), hashlib.sha256(), 0
    try:
        part.parent.mkdir(parents=True, exist_ok=True)
        with opener.open(mount["url"], timeout=_SECONDS) as answer, part.open("wb") as file:
            while chunk := answer.read(_CHUNK_BYTES):
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
    except (OSError, ValueError) as err:
        return f"could not be fetched: {err}"
    if size != mount["size_bytes"]:
        return f"came with {size} bytes instead of {mount['size_bytes']}"
    if mount["sha256"] and digest.hexdigest() != mount["sha256"]:
        return f"came with another SHA-256 than {mount['sha256']}"
    part.chmod(0o444)
    part.rename(target)
    return ""
