"""The file backend: names, refusals, whole-or-nothing writes, history in order."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from engine.deploy.backend.file import BackendError, FileBackend, StackReference, parse_reference, write_blob
from engine.model.errors import StaleLease

STACK = StackReference("golden", "dev")


def allowed() -> None:
    return None


@pytest.fixture
def backend(tmp_path: Path) -> FileBackend:
    return FileBackend.open(f"file://{tmp_path}", tmp_path, "/home/nobody")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dev", STACK),
        ("organization/dev", STACK),
        ("organization/other/dev", StackReference("other", "dev")),
    ],
)
def test_names_of_stacks(text: str, expected: StackReference) -> None:
    assert parse_reference(text, "golden") == expected


@pytest.mark.parametrize(
    "text", ["acme/dev", "a/b/c/d", "", "..", "a b", "dev/../../etc", "organization/golden/..", "x" * 101]
)
def test_names_that_may_not_be(text: str) -> None:
    with pytest.raises(BackendError):
        parse_reference(text, "golden")


def test_project_may_not_leave_the_folder() -> None:
    with pytest.raises(BackendError, match="project"):
        parse_reference("organization/../dev", "golden")


@pytest.mark.parametrize("form", ["file://{}", "file://./", "file://~"])
def test_forms_of_urls(tmp_path: Path, form: str) -> None:
    assert FileBackend.open(form.format(tmp_path), tmp_path, str(tmp_path)).root.resolve() == tmp_path


def test_old_layout_is_refused(tmp_path: Path) -> None:
    write_blob(tmp_path / ".pulumi/stacks/dev.json", b"{}")
    with pytest.raises(BackendError, match="state upgrade"):
        FileBackend.open(f"file://{tmp_path}", tmp_path, "")


def test_newer_layout_is_refused(tmp_path: Path) -> None:
    write_blob(tmp_path / ".pulumi/meta.yaml", b"version: 2\n")
    with pytest.raises(BackendError, match="newer layout"):
        FileBackend.open(f"file://{tmp_path}", tmp_path, "")


@pytest.mark.parametrize("extension", [".gz", ".zst"])
def test_compressed_checkpoint_is_refused(backend: FileBackend, extension: str) -> None:
    write_blob(backend.folder / f"stacks/golden/dev.json{extension}", b"")
    with pytest.raises(BackendError, match="compressed"):
        backend.exists(STACK)


def test_checkpoint_before_the_last_is_kept(backend: FileBackend) -> None:
    backend.write(STACK, b"first", allowed)
    backend.write(STACK, b"second", allowed)
    assert backend.read(STACK) == b"second"
    assert (backend.folder / "stacks/golden/dev.json.bak").read_bytes() == b"first"
    assert (backend.folder / "meta.yaml").read_bytes() == b"version: 1\n"
    assert backend.stacks() == backend.stacks("golden") == [STACK]


def test_failed_write_leaves_the_old_file(
    backend: FileBackend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    backend.write(STACK, b"first", allowed)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("engine.deploy.backend.file.os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        backend.write(STACK, b"second", allowed)
    assert backend.read(STACK) == b"first"
    assert not list(tmp_path.rglob("*.tmp"))


def test_history_is_newest_first_and_paged(backend: FileBackend) -> None:
    for number in range(5):
        backend.add_history(STACK, {"message": str(number)}, b"{}", 1_795_253_196_000_000_000 + number)
    assert [u["message"] for u in backend.history(STACK)] == ["4", "3", "2", "1", "0"]
    assert [u["message"] for u in backend.history(STACK, 2, 2)] == ["2", "1"]
    assert backend.history(STACK, 2, 9) == []


def test_damaged_history_names_the_file(backend: FileBackend) -> None:
    backend.add_history(STACK, {}, b"{}", 1)
    (backend.folder / "history/golden/dev/dev-1.history.json").write_text("{")
    with pytest.raises(BackendError, match=r"dev-1\.history\.json"):
        backend.history(STACK)


def test_tags_are_stored_as_the_official_engine_stores_them(backend: FileBackend) -> None:
    backend.write_tags(STACK, {"b": "2", "a": "1"})
    stored = json.loads((backend.folder / "stacks/golden/dev.pulumi-tags").read_text())
    assert stored == {"version": 1, "tags": {"a": "1", "b": "2"}}
    backend.write_tags(STACK, {})
    assert backend.tags(STACK) == {}


def test_writer_that_lost_its_lease_replaces_nothing(backend: FileBackend, tmp_path: Path) -> None:
    backend.write(STACK, b"first", allowed)

    def stale() -> None:
        raise StaleLease("somebody else works on this stack")

    with pytest.raises(StaleLease):
        backend.write(STACK, b"second", stale)
    assert backend.read(STACK) == b"first"
    assert not list(tmp_path.rglob("*.tmp"))


def test_many_threads_may_make_the_same_file_at_once(tmp_path: Path) -> None:
    start = threading.Barrier(8)
    errors: list[OSError] = []

    def write() -> None:
        start.wait(10)
        try:
            for _ in range(50):
                write_blob(tmp_path / "meta.yaml", b"version: 1\n")
        except OSError as err:
            errors.append(err)

    threads = [threading.Thread(target=write) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert not errors
    assert (tmp_path / "meta.yaml").read_bytes() == b"version: 1\n"
