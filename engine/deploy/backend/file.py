"""The file backend: the `.pulumi` folder exactly as the official engine lays it out, so that either can work on it.

Stores bytes under names; which names is `stacks.py`'s business.
Source: gocloud `blob/fileblob`.
"""

from __future__ import annotations

import base64
import hashlib
import os
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO
from urllib.parse import unquote, urlsplit

from engine.deploy.backend.blobs import BackendError, Blob, encode, lock_gone
from engine.model.errors import StaleLease

_ATTRIBUTES = ".attrs"
_FOLDER_ID = "stackyard-folder"


class FileBlobs:
    """Blobs in a folder.

    Attributes:
        root: the folder that holds `.pulumi`.
        folder: `.pulumi`.
    """

    probe_seconds = 0.0

    def __init__(self, root: Path, url: str) -> None:
        self.root = root
        self.folder = root / ".pulumi"
        self.url = url

    @classmethod
    def open(cls, url: str, cwd: Path, home: str) -> FileBlobs:
        """The folder of a `file://` URL.

        Raises:
            BackendError: it is missing.
        """
        parts = urlsplit(url)
        path = unquote(parts.netloc + parts.path)
        if path == "~" or path.startswith("~/"):
            path = home + path[1:]
        root = cwd / path
        if not root.is_dir():
            raise BackendError(f"unable to open {url}: {root} is not a folder; create it first")
        return cls(root, url)

    @property
    def identity(self) -> str:
        return str(self.root.resolve())

    def location(self, key: str) -> str:
        """See `Blobs.location`."""
        return f"file://{self.folder / key}"

    def get(self, key: str) -> Blob | None:
        """See `Blobs.get`."""
        try:
            return Blob((self.folder / key).read_bytes())
        except FileNotFoundError:
            return None

    def existing(self, keys: Iterable[str]) -> set[str]:
        """See `Blobs.existing`."""
        return {key for key in keys if (self.folder / key).exists()}

    def put(self, key: str, data: bytes) -> None:
        """See `Blobs.put`. Not forced to disk: only checkpoints and journals must survive a power cut."""
        path = self.folder / key
        replace_file(path, data)
        _write_attributes(path, data)

    def create(self, key: str, data: bytes, *, guard: str) -> None:
        """See `Blobs.create`."""
        path = self.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = _draft(path)
        try:
            replace_file(draft, data, durable=True)
            os.link(draft, path)
        finally:
            draft.unlink(missing_ok=True)
        sync_folder(path.parent)
        if guard and not (self.folder / guard).exists():
            path.unlink(missing_ok=True)
            raise lock_gone()

    def replace(self, key: str, data: bytes, *, over: Blob | None, check: Callable[[], None], guard: str = "") -> None:
        """See `Blobs.replace`: a file system cannot compare and rename in one step, so the questions come last."""
        path = self.folder / key

        def allowed() -> None:
            check()
            if guard and not (self.folder / guard).exists():
                raise lock_gone()

        replace_file(path, data, durable=True, check=allowed)
        _write_attributes(path, data)
        sync_folder(path.parent)

    def delete(self, key: str) -> None:
        """See `Blobs.delete`."""
        path = self.folder / key
        path.unlink(missing_ok=True)
        path.with_name(path.name + _ATTRIBUTES).unlink(missing_ok=True)

    def keys(self, folder: str) -> list[str]:
        """See `Blobs.keys`; attributes and drafts are none."""
        found: list[str] = []
        for parent, _, names in os.walk(self.folder / folder):
            inside = Path(parent).relative_to(self.folder)
            found += [(inside / n).as_posix() for n in names if not n.endswith(_ATTRIBUTES) and not n.startswith(".")]
        return sorted(found)


class FileLogs:
    """Logs in a folder: one file each, to which lines are added."""

    def __init__(self, blobs: FileBlobs) -> None:
        self._folder = blobs.folder

    def open(self, key: str, *, owner: str, guard: str) -> FileLog:
        """See `Logs.open`."""
        return FileLog(self._folder / key, self._folder / guard)

    def read(self, key: str) -> bytes | None:
        """See `Logs.read`."""
        try:
            return (self._folder / key).read_bytes()
        except FileNotFoundError:
            return None

    def exists(self, key: str) -> bool:
        """See `Logs.exists`."""
        return (self._folder / key).exists()

    def delete(self, key: str) -> None:
        """See `Logs.delete`."""
        (self._folder / key).unlink(missing_ok=True)


class FileLog:
    """One file that is written; open from the first line on."""

    def __init__(self, path: Path, guard: Path) -> None:
        self._path = path
        self._guard = guard
        self._file: IO[bytes] | None = None

    def append(self, lines: bytes) -> None:
        """See `Log.append`."""
        created = self._file is None
        file = self._file or self._create()
        self._file = file
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())
        if created:
            sync_folder(self._path.parent)
        if not self._guard.exists():
            self.close(remove=created)
            raise lock_gone()

    def close(self, *, remove: bool) -> None:
        """See `Log.close`."""
        if self._file is not None:
            if remove and self._is_ours(self._file):
                self._path.unlink()
            self._file.close()
            self._file = None

    def _create(self) -> IO[bytes]:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return open(self._path, "xb")
        except FileExistsError as err:
            raise StaleLease(f"{self._path} is another update's journal: this one has stopped") from err

    def _is_ours(self, file: IO[bytes]) -> bool:
        # Whoever took the stack over meanwhile has removed this file and may have made one of the same name.
        try:
            return os.path.samestat(os.fstat(file.fileno()), os.stat(self._path))
        except FileNotFoundError:
            return False


def folder_id(blobs: FileBlobs, new_id: str) -> str:
    """What tells a backend's folder from every other one, wherever it is copied or mounted; `new_id` at first sight."""
    try:
        blobs.create(_FOLDER_ID, new_id.encode(), guard="")
    except FileExistsError:
        return (blobs.folder / _FOLDER_ID).read_text(encoding="utf-8").strip()
    return new_id


def _write_attributes(path: Path, data: bytes) -> None:
    """The file gocloud keeps beside each blob."""
    attributes = {
        "user.cache_control": "",
        "user.content_disposition": "",
        "user.content_encoding": "",
        "user.content_language": "",
        "user.content_type": "text/plain; charset=utf-8",
        "user.metadata": None,
        "md5": base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode(),
    }
    replace_file(path.with_name(path.name + _ATTRIBUTES), encode(attributes) + b"\n")


def _nothing() -> None:
    return None


def _draft(path: Path) -> Path:
    # Process and thread keep drafts apart: several may make the same file at once (meta.yaml in a new folder).
    return path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")


def replace_file(path: Path, data: bytes, *, durable: bool = False, check: Callable[[], None] = _nothing) -> None:
    """Write a file whole or not at all, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = _draft(path)
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


def sync_folder(folder: Path) -> None:
    """Make a rename or a new file in a folder survive a power cut."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
