"""What a Droplet does with its user-data: the part of cloud-init this cloud knows, `write_files`.

Packages, commands and everything else of `#cloud-config` is read over: a machine here is a folder and two processes.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

HEADER = "#cloud-config"
_BASE64 = frozenset({"b64", "base64", "gz+b64", "gz+base64", "gzip+b64", "gzip+base64"})
_GZIP = frozenset({"gz", "gzip", "gz+b64", "gz+base64", "gzip+b64", "gzip+base64"})
_PLAIN = frozenset({"", "text/plain"})


@dataclass(frozen=True)
class BootFile:
    """A file user-data asks for."""

    path: str
    content: bytes
    mode: int
    append: bool = False


def parse_user_data(text: str) -> list[BootFile]:
    """The files of a `#cloud-config`; a script or nothing has none.

    Raises:
        ValueError: it says `#cloud-config` and cannot be read.
    """
    if text.partition("\n")[0].strip() != HEADER:
        return []
    data = _load(text.partition("\n")[2])
    if not isinstance(data, dict):
        raise ValueError("cloud-config must be a mapping")
    entries = data.get("write_files") or []
    if not isinstance(entries, list):
        raise ValueError("write_files must be a list")
    return [_boot_file(e) for e in entries]


def _load(text: str) -> Any:
    if not text.strip():
        return {}
    # JSON is YAML too, and the YAML parser needs a second for what json reads in a millisecond.
    if text.lstrip().startswith("{"):
        try:
            return json.loads(text)
        except ValueError:
            pass
    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as err:
        raise ValueError(f"cloud-config is not YAML: {err}") from err


def _boot_file(entry: object) -> BootFile:
    if not isinstance(entry, Mapping) or not isinstance(entry.get("path"), str):
        raise ValueError("every entry of write_files needs a path")
    path = entry["path"]
    try:
        content = _decode(entry.get("content", ""), str(entry.get("encoding") or "").strip().lower())
        mode = _mode(entry.get("permissions", "0644"))
    except (ValueError, binascii.Error, OSError, EOFError, zlib.error) as err:
        raise ValueError(f"write_files {path}: {err}") from err
    return BootFile(path, content, mode, entry.get("append") is True)


def _decode(content: object, encoding: str) -> bytes:
    if encoding not in _BASE64 | _GZIP | _PLAIN:
        raise ValueError(f"unknown encoding {encoding!r}")
    raw = content if isinstance(content, bytes) else str(content).encode()
    if encoding in _BASE64:
        raw = base64.b64decode(raw)
    return gzip.decompress(raw) if encoding in _GZIP else raw


def _mode(permissions: object) -> int:
    """Octal text; a YAML number is meant in octal too, but YAML 1.1 has read `0644` as one already."""
    mode = permissions if isinstance(permissions, int) else int(str(permissions), 8)
    if not 0 <= mode <= 0o7777:
        raise ValueError(f"permissions {permissions!r} are not a file mode")
    return mode


def inside(root: Path, path: str) -> Path:
    """The place of an absolute path beneath a machine's root.

    Raises:
        ValueError: it would be outside.
    """
    parts = [p for p in path.split("/") if p not in ("", ".")]
    if not parts or ".." in parts:
        raise ValueError(f"{path!r} is not a path below the machine's root")
    return root.joinpath(*parts)


def write_files(root: Path, files: list[BootFile]) -> None:
    """Write them beneath `root`, in order, each with its own mode.

    Raises:
        ValueError: a path that leads out. OSError: the disk.
    """
    for file in files:
        target = inside(root, file.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("ab" if file.append else "wb") as stream:
            target.chmod(0o600)
            stream.write(file.content)
        target.chmod(file.mode)
