"""Objects as files of this machine: written under a temporary name, renamed when whole. Knows neither owners nor URLs.

No name here comes from a user: blobs have random names of our own.

```
<folder>/incoming/<blob>        being written; parts of a session are written at their offsets of one file
<folder>/blobs/<xx>/<blob>      whole; never changed
```
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from engine.model.errors import StorageFull

CHUNK_BYTES = 1024 * 1024
"""What is read, written and hashed at once: large enough that a thread's start costs nothing beside it."""

_BLOB = re.compile(r"blob_[0-9a-z]{16}")
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class BlobFolder:
    """One folder of blobs. Every function blocks: call it in a thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._incoming = folder / "incoming"
        self._blobs = folder / "blobs"

    def writer(self, blob: str, offset: int = 0) -> BlobWriter:
        """Write a new blob, or a part of one at its offset."""
        self._incoming.mkdir(parents=True, exist_ok=True, mode=0o700)
        return BlobWriter(self._incoming / _checked(blob), offset)

    def finish(self, blob: str) -> None:
        """Give a blob that was written its place; again: no change.

        Raises:
            FileNotFoundError: nothing was written under this name.
        """
        target = self.path(blob)
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            os.rename(self._incoming / blob, target)
        except FileNotFoundError:
            if not target.exists():  # else: renamed before a crash that kept the database from hearing of it
                raise
        for folder in (target.parent, self._blobs):
            _sync_folder(folder)

    def path(self, blob: str) -> Path:
        return self._blobs / _checked(blob)[5:7] / blob

    def size(self, blob: str) -> int | None:
        """Bytes of a whole blob; None: there is none."""
        try:
            return self.path(blob).stat().st_size
        except FileNotFoundError:
            return None

    def sha256(self, blob: str) -> str:
        """Of a whole blob, read in chunks; 64 hexadecimal digits."""
        with self.path(blob).open("rb", buffering=0) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def remove(self, blob: str) -> None:
        """Whole or not; nothing happens where there is none. Readers that have it open read on."""
        self.path(blob).unlink(missing_ok=True)
        (self._incoming / _checked(blob)).unlink(missing_ok=True)

    def unchanged_since(self, moment: datetime) -> Iterator[str]:
        """Blobs, whole or not, that nobody wrote to since."""
        for folder in (self._incoming, *sorted(self._blobs.glob("*"))):
            try:
                entries = list(os.scandir(folder))
            except FileNotFoundError:
                continue
            for entry in entries:
                if _BLOB.fullmatch(entry.name) and _changed_at(entry) < moment:
                    yield entry.name


class BlobWriter:
    """Writes and hashes one stretch of a file under its temporary name."""

    def __init__(self, path: Path, offset: int) -> None:
        self._path = path
        self._at = offset
        self._digest = hashlib.sha256()
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self.written = 0

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def write(self, chunk: bytes | bytearray) -> None:
        """Append.

        Raises:
            StorageFull: the disk is; what was there before is untouched.
        """
        view = memoryview(chunk)
        while view:
            with _full_is_said():
                count = os.pwrite(self._descriptor, view, self._at)
            self._digest.update(view[:count])
            self._at += count
            self.written += count
            view = view[count:]

    def close(self, *, keep: bool) -> None:
        """Let go of the file: what is kept is on the disk afterwards.

        Raises:
            StorageFull: file systems that give out space late find out here.
        """
        try:
            if keep:
                with _full_is_said():
                    os.fdatasync(self._descriptor)
        finally:
            os.close(self._descriptor)


@contextmanager
def _full_is_said() -> Iterator[None]:
    try:
        yield
    except OSError as err:
        if err.errno not in _FULL:
            raise
        raise StorageFull(
            "the storage disk is full: nothing was stored; delete objects, or ask the operator for space"
        ) from err


def _checked(blob: str) -> str:
    if not _BLOB.fullmatch(blob):
        raise ValueError(f"no blob is named {blob!r}")
    return blob


def _changed_at(entry: os.DirEntry[str]) -> datetime:
    try:
        return datetime.fromtimestamp(entry.stat(follow_symlinks=False).st_mtime, UTC)
    except FileNotFoundError:  # removed at this moment: as good as new, nobody has to
        return datetime.max.replace(tzinfo=UTC)


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
