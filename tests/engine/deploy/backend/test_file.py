"""What only the file backend has: forms of URLs, drafts, gocloud's attributes, a folder with a name of its own."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from engine.deploy.backend.blobs import BackendError
from engine.deploy.backend.file import FileBlobs, folder_id
from engine.deploy.backend.open import open_backend
from engine.model.errors import StaleLease


def allowed() -> None:
    return None


@pytest.fixture
def blobs(tmp_path: Path) -> FileBlobs:
    return FileBlobs(tmp_path, f"file://{tmp_path}")


@pytest.mark.parametrize("form", ["file://{}", "file://./", "file://~"])
def test_forms_of_urls(tmp_path: Path, form: str) -> None:
    backend = open_backend(form.format(tmp_path), tmp_path, {"HOME": str(tmp_path)})
    assert backend.blobs.identity == str(tmp_path)


@pytest.mark.parametrize(
    ("url", "says"),
    [("", "no backend is set"), ("file:///does/not/exist", "create it first"), ("gs://b", "only file://")],
)
def test_unusable_url_says_why(tmp_path: Path, url: str, says: str) -> None:
    with pytest.raises(BackendError, match=says):
        open_backend(url, tmp_path, {})


def test_failed_write_leaves_the_old_file(blobs: FileBlobs, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    blobs.put("a/b.json", b"first")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("engine.deploy.backend.file.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        blobs.replace("a/b.json", b"second", over=None, check=allowed)
    with pytest.raises(OSError, match="No space"):
        blobs.create("a/c.json", b"second", guard="")
    assert blobs.keys("a") == ["a/b.json"]
    assert (tmp_path / ".pulumi/a/b.json").read_bytes() == b"first"
    assert not list(tmp_path.rglob("*.tmp"))


def test_refused_write_leaves_no_draft(blobs: FileBlobs, tmp_path: Path) -> None:
    with pytest.raises(StaleLease):
        blobs.replace("a/b.json", b"second", over=None, check=allowed, guard="locks/a.json")
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_attributes_come_and_go_with_their_blob(blobs: FileBlobs) -> None:
    blobs.put("a/b.json", b"first")
    assert (blobs.folder / "a/b.json.attrs").exists()
    assert blobs.keys("a") == ["a/b.json"]
    blobs.delete("a/b.json")
    assert not (blobs.folder / "a/b.json.attrs").exists()


def test_many_threads_may_make_the_same_file_at_once(blobs: FileBlobs) -> None:
    start = threading.Barrier(8)
    errors: list[OSError] = []

    def write() -> None:
        start.wait(60)
        try:
            for _ in range(50):
                blobs.put("meta.yaml", b"version: 1\n")
        except OSError as err:
            errors.append(err)

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    assert (blobs.folder / "meta.yaml").read_bytes() == b"version: 1\n"


def test_folder_keeps_its_first_name(tmp_path: Path) -> None:
    one, other = (FileBlobs(tmp_path / name, "") for name in ("one", "other"))
    assert folder_id(one, "first") == "first"
    assert folder_id(one, "second") == "first"
    assert folder_id(other, "third") == "third"
