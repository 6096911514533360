"""The file backend: the `.pulumi` folder exactly as the official engine lays it out, so that either can work on it.

Stores bytes and names; checkpoints are understood in `checkpoint.py`, locks in `locks.py`, journals in
`file_journal.py`.
Source: pulumi `pkg/backend/diy/{state,store,meta}.go`, gocloud `blob/fileblob`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

_META = b"version: 1\n"
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
_CLI_HINT = "use the official CLI for it (STACKYARD_PULUMI=cli)"


class BackendError(Exception):
    """The backend cannot do that; the message says what to do."""


@dataclass(frozen=True)
class StackReference:
    """A stack's name in a backend; the organization of a self-managed backend is always `organization`."""

    project: str
    name: str

    @property
    def qualified(self) -> str:
        return f"organization/{self.project}/{self.name}"


def parse_reference(text: str, project: str) -> StackReference:
    """A stack name as the command line takes it: `dev`, `organization/dev` or `organization/project/dev`.

    Raises:
        BackendError: another organization, or a name that may not be.
    """
    match text.split("/"):
        case [name]:
            organization = "organization"
        case [organization, name]:
            pass
        case [organization, project, name]:
            pass
        case _:
            raise BackendError(f"invalid stack name {text!r}: it may read name, organization/name or org/project/name")
    if organization != "organization":
        raise BackendError("organization name must be 'organization'")
    if not _is_name(name):
        raise BackendError(
            f"invalid stack name {text!r}: a stack name has 1 to 100 letters, digits, hyphens, underscores and periods"
        )
    if project and not _is_name(project):
        raise BackendError(f"invalid project name {project!r}: it has letters, digits, hyphens, underscores, periods")
    if not project:
        raise BackendError("the project's name is needed to find a stack: run inside a project, or name it fully")
    return StackReference(project, name)


def _is_name(text: str) -> bool:
    return bool(_NAME.fullmatch(text)) and text not in (".", "..")


class FileBackend:
    """One folder of stacks.

    Attributes:
        url: as the user gave it.
        root: the folder that holds `.pulumi`.
    """

    def __init__(self, root: Path, url: str) -> None:
        self.root = root
        self.url = url
        self.folder = root / ".pulumi"

    @classmethod
    def open(cls, url: str, cwd: Path, home: str) -> FileBackend:
        """The backend of a `file://` URL.

        Raises:
            BackendError: another scheme, a missing folder, or a layout this engine does not know.
        """
        if not url:
            raise BackendError("no backend is set: set PULUMI_BACKEND_URL=file:///path/to/a/folder")
        parts = urlsplit(url)
        if parts.scheme != "file":
            raise BackendError(f"the embedded engine has no backend for {url!r}, only file://; {_CLI_HINT}")
        path = unquote(parts.netloc + parts.path)
        if path == "~" or path.startswith("~/"):
            path = home + path[1:]
        root = cwd / path
        if not root.is_dir():
            raise BackendError(f"unable to open {url}: {root} is not a folder; create it first")
        backend = cls(root, url)
        backend._check_layout()
        return backend

    def _check_layout(self) -> None:
        try:
            meta = (self.folder / "meta.yaml").read_bytes()
        except FileNotFoundError:
            if any((self.folder / "stacks").glob("*.json")):
                raise BackendError(
                    f"{self.folder} has the old layout without projects: run `pulumi state upgrade` with the CLI"
                ) from None
            return
        if meta.strip() != _META.strip():
            raise BackendError(f"{self.folder}/meta.yaml names a newer layout than version 1; {_CLI_HINT}")

    def _stack_path(self, stack: StackReference) -> Path:
        return self.folder / "stacks" / stack.project / f"{stack.name}.json"

    def exists(self, stack: StackReference) -> bool:
        """Whether the stack has a checkpoint."""
        path = self._stack_path(stack)
        for compressed in (".gz", ".zst"):
            if path.with_name(path.name + compressed).exists():
                raise BackendError(f"the checkpoint of {stack.name} is compressed ({compressed}); {_CLI_HINT}")
        return path.exists()

    def stacks(self, project: str = "") -> list[StackReference]:
        """All stacks, or those of one project, sorted by project and name."""
        folders = [self.folder / "stacks" / project] if project else (self.folder / "stacks").glob("*")
        found = [StackReference(f.name, p.stem) for f in folders if f.is_dir() for p in f.glob("*.json")]
        return sorted(found, key=lambda s: (s.project, s.name))

    def read(self, stack: StackReference) -> bytes:
        """The checkpoint file.

        Raises:
            FileNotFoundError: no such stack.
        """
        return self._stack_path(stack).read_bytes()

    def write(self, stack: StackReference, checkpoint: bytes, check: Callable[[], None]) -> None:
        """Put the checkpoint, durably; the one before stays as `.bak`.

        Args:
            check: raises if the caller may not write; asked last of all before the new file takes the old one's place.
        """
        if not (self.folder / "meta.yaml").exists():
            write_blob(self.folder / "meta.yaml", _META)
        path = self._stack_path(stack)
        if path.exists():
            write_blob(path.with_name(path.name + ".bak"), path.read_bytes())
        write_blob(path, checkpoint, durable=True, check=check)

    def remove(self, stack: StackReference, *, remove_backups: bool = False) -> None:
        """Take the stack away: its checkpoint stays as `.bak`, its history goes."""
        path = self._stack_path(stack)
        backup = path.with_name(path.name + ".bak")
        if remove_backups:
            remove_blob(backup)
            shutil.rmtree(self.folder / "backups" / stack.project / stack.name, ignore_errors=True)
        elif path.exists():
            write_blob(backup, path.read_bytes())
        remove_blob(path)
        remove_blob(self._tags_path(stack))
        shutil.rmtree(self.folder / "history" / stack.project / stack.name, ignore_errors=True)

    def add_history(
        self, stack: StackReference, update: Mapping[str, Any], checkpoint: bytes, nanoseconds: int
    ) -> None:
        """Record one update and the checkpoint it led to."""
        folder = self.folder / "history" / stack.project / stack.name
        prefix = f"{stack.name}-{nanoseconds}"
        write_blob(folder / f"{prefix}.history.json", encode(update))
        write_blob(folder / f"{prefix}.checkpoint.json", checkpoint)

    def add_backup(self, stack: StackReference, checkpoint: bytes, nanoseconds: int) -> None:
        """Keep a copy of the checkpoint an update led to."""
        folder = self.folder / "backups" / stack.project / stack.name
        write_blob(folder / f"{stack.name}.{nanoseconds}.json", checkpoint)

    def history(self, stack: StackReference, page_size: int = 0, page: int = 1) -> Sequence[dict[str, Any]]:
        """Recorded updates, newest first; `page_size` 0 is all of them."""
        folder = self.folder / "history" / stack.project / stack.name
        names = sorted((p.name for p in folder.glob("*.history.json")), reverse=True)
        if page_size > 0:
            start = (max(page, 1) - 1) * page_size
            names = names[start : start + page_size]
        return [self._read_history(folder / name) for name in names]

    def _read_history(self, path: Path) -> dict[str, Any]:
        try:
            return dict(json.loads(path.read_bytes()))
        except ValueError as err:
            raise BackendError(f"reading history file {path}: {err}; delete the file to go on without it") from err

    def _tags_path(self, stack: StackReference) -> Path:
        return self.folder / "stacks" / stack.project / f"{stack.name}.pulumi-tags"

    def tags(self, stack: StackReference) -> dict[str, str]:
        """The stack's tags."""
        try:
            data = json.loads(self._tags_path(stack).read_bytes())
        except FileNotFoundError:
            return {}
        return {str(k): str(v) for k, v in (data.get("tags") or {}).items()}

    def write_tags(self, stack: StackReference, tags: Mapping[str, str]) -> None:
        """Replace the stack's tags."""
        if tags:
            write_blob(self._tags_path(stack), encode({"version": 1, "tags": dict(sorted(tags.items()))}))
        else:
            remove_blob(self._tags_path(stack))


def encode(data: Mapping[str, Any]) -> bytes:
    """JSON as the backend stores it: compact, UTF-8."""
    return json.dumps(data, separators=(",", ":"), ensure_ascii=False).encode()


def _nothing() -> None:
    return None


def write_blob(path: Path, data: bytes, *, durable: bool = False, check: Callable[[], None] = _nothing) -> None:
    """Write a file whole or not at all, with the `.attrs` file gocloud keeps beside each."""
    attributes = {
        "user.cache_control": "",
        "user.content_disposition": "",
        "user.content_encoding": "",
        "user.content_language": "",
        "user.content_type": "text/plain; charset=utf-8",
        "user.metadata": None,
        "md5": base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode(),
    }
    replace_file(path, data, durable=durable, check=check)
    replace_file(path.with_name(path.name + ".attrs"), encode(attributes) + b"\n")
    if durable:
        sync_folder(path.parent)


def replace_file(path: Path, data: bytes, *, durable: bool = False, check: Callable[[], None] = _nothing) -> None:
    """Write a file whole or not at all, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Process and thread keep drafts apart: several may make the same file at once (meta.yaml in a new folder).
    draft = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
    try:
        with open(draft, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        check()
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def remove_blob(path: Path) -> None:
    """Delete a file and its attributes; absent is fine."""
    path.unlink(missing_ok=True)
    path.with_name(path.name + ".attrs").unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename or a new file in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
