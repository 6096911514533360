"""Builds images from folders on this machine with the daemon's own (classic) builder. Knows no resource type."""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docker.utils.build import exclude_paths

from engine.deploy.providers.docker.daemon import Daemon, DaemonError, Json, TypeFailure, checked_messages

_LAST_LINES = 15


async def build(daemon: Daemon, context: str, options: dict[str, Any]) -> str:
    """Build an image; returns its id.

    Args:
        options: of `APIClient.build`.

    Raises:
        TypeFailure: the build failed; the message ends with the last lines of its log.
    """
    if not Path(context).is_dir():
        raise TypeFailure(f"the build context {context} is not a folder on this machine")
    lines: list[str] = []
    try:
        messages = await daemon.do(lambda client: _run(client, daemon, {"path": context, **options}, lines))
    except DaemonError as err:
        log = "\n".join(lines[-_LAST_LINES:])
        hint = "; this needs BuildKit, which the built-in provider does not drive" if "BuildKit" in err.words else ""
        raise TypeFailure(f"error building image: {err.words}{hint}" + (f"\n{log}" if log else "")) from err
    built = next((m["aux"]["ID"] for m in reversed(messages) if "ID" in (m.get("aux") or {})), "")
    if not built:
        raise TypeFailure("no image id found in build output")
    return str(built)


def _run(client: Any, daemon: Daemon, options: dict[str, Any], lines: list[str]) -> list[Json]:
    for address, header in daemon.registries.for_builds().items():
        client._auth_configs.add_auth(address, header)
    messages = []
    for message in checked_messages(client.build(decode=True, **options)):
        messages.append(message)
        lines.extend(str(message.get("stream") or "").splitlines())
    return messages


def context_digest(context: str, dockerfile: str) -> str:
    """The digest of all files a build can see, as the official provider makes it.

    Raises:
        OSError: something cannot be read.
    """
    total = hashlib.sha256()
    total.update(_entry("Dockerfile", "----------", Path(dockerfile).read_bytes()))
    for name in sorted(_visible(context, dockerfile), key=lambda n: n.split("/")):
        path = Path(context) / name
        mode = path.lstat().st_mode
        content = os.path.realpath(path).encode() if stat.S_ISLNK(mode) else path.read_bytes()
        total.update(_entry(name, _mode_text(mode), content))
    return total.hexdigest()


def _entry(name: str, mode: str, content: bytes) -> bytes:
    return name.encode() + mode.encode() + hashlib.sha256(content).digest() + b"\0"


def _mode_text(mode: int) -> str:
    """Go's `FileMode.String`."""
    text = stat.filemode(mode & ~(stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX))
    prefix = "L" if stat.S_ISLNK(mode) else ""
    marks = "".join(c for bit, c in ((stat.S_ISUID, "u"), (stat.S_ISGID, "g"), (stat.S_ISVTX, "t")) if mode & bit)
    return f"{prefix or marks or '-'}{text[1:]}"


def _visible(context: str, dockerfile: str) -> Iterator[str]:
    """Files that `.dockerignore` does not leave out."""
    inside = os.path.relpath(dockerfile, context)
    for name in exclude_paths(os.path.abspath(context), _ignored(context, dockerfile), dockerfile=inside):
        path = Path(context) / name
        if path.is_symlink() or path.is_file():
            yield name.replace(os.sep, "/")


def _ignored(context: str, dockerfile: str) -> list[str]:
    for file in (Path(f"{dockerfile}.dockerignore"), Path(context) / ".dockerignore"):
        if file.is_file():
            lines = (re.sub(r"^\s+|\s+$", "", line) for line in file.read_text().splitlines())
            return [line for line in lines if line and not line.startswith("#")]
    return []
