"""Files that go into a container, as the archive that is sent to the daemon. No daemon."""

from __future__ import annotations

import io
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from engine.deploy.providers.docker.container_body import uploaded
from engine.deploy.providers.docker.daemon import TypeFailure

MTIME = 1_700_000_000


def test_the_archive_holds_every_file_as_it_was_asked_for(tmp_path: Path) -> None:
    source = tmp_path / "weights"
    source.write_bytes(bytes(range(256)) * 5)
    archive = b"".join(
        uploaded(
            [
                {"file": "/mounts/größe", "source": str(source), "permissions": "0444", "owner": "1000"},
                {"file": "/etc/text", "content": "é"},
                {"file": "/empty", "content": "", "executable": True},
                {"file": "/raw", "contentBase64": "AAE="},
            ],
            MTIME,
        )
    )
    assert len(archive) % tarfile.BLOCKSIZE == 0
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        files = {m.name: (m.mode, m.uid, m.mtime, opened.extractfile(m).read()) for m in opened}  # type: ignore[union-attr]
    assert files == {
        "mounts/größe": (0o444, 1000, MTIME, source.read_bytes()),
        "etc/text": (0o644, 0, MTIME, "é".encode()),
        "empty": (0o744, 0, MTIME, b""),
        "raw": (0o644, 0, MTIME, b"\0\1"),
    }


def test_memory_does_not_grow_with_a_file(tmp_path: Path) -> None:
    source = tmp_path / "weights"
    with source.open("wb") as file:
        file.truncate(64 << 20)
    tracemalloc.start()
    try:
        sent = sum(len(piece) for piece in uploaded([{"file": "/w", "source": str(source)}], MTIME))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert sent == (64 << 20) + 3 * tarfile.BLOCKSIZE and peak < 8 << 20


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    source = tmp_path / "weights"
    with pytest.raises(TypeFailure, match=f"could not read file {source}: No such file"):
        uploaded([{"file": "/w", "source": str(source)}], MTIME)  # before anything is sent
    source.write_bytes(b"12345")
    pieces = uploaded([{"file": "/w", "source": str(source)}], MTIME)
    next(pieces)
    source.write_bytes(b"12")
    with pytest.raises(TypeFailure, match="3 bytes early"):
        list(pieces)
