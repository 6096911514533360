"""The layout on every kind of backend: names, checkpoints, history in order, tags."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from engine.deploy.backend.blobs import BackendError
from engine.deploy.backend.stacks import Backend, StackReference, parse_reference
from engine.model.errors import StaleLease

# The first test that needs the S3 server may have to build it.
pytestmark = pytest.mark.timeout(900)

STACK = StackReference("golden", "dev")
LOCK = "locks/organization/golden/dev/a.json"


def allowed() -> None:
    return None


def content(backend: Backend, key: str) -> bytes:
    blob = backend.blobs.get(key)
    assert blob is not None
    return blob.data


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


def test_old_layout_is_refused(opener: Callable[[], Backend]) -> None:
    opener().blobs.put("stacks/dev.json", b"{}")
    with pytest.raises(BackendError, match="state upgrade"):
        opener()


def test_newer_layout_is_refused(opener: Callable[[], Backend]) -> None:
    opener().blobs.put("meta.yaml", b"version: 2\n")
    with pytest.raises(BackendError, match="newer layout"):
        opener()


@pytest.mark.parametrize("extension", [".gz", ".zst"])
def test_compressed_checkpoint_is_refused(backend: Backend, extension: str) -> None:
    backend.blobs.put(f"stacks/golden/dev.json{extension}", b"x")
    with pytest.raises(BackendError, match="compressed"):
        backend.exists(STACK)


def test_checkpoint_before_the_last_is_kept(backend: Backend, opener: Callable[[], Backend]) -> None:
    assert not backend.exists(STACK)
    backend.write(STACK, b"first", allowed)
    backend.write(STACK, b"second", allowed, over=b"first")
    again = opener()
    assert again.exists(STACK)
    assert again.read(STACK) == b"second"
    assert content(again, "stacks/golden/dev.json.bak") == b"first"
    assert content(again, "meta.yaml") == b"version: 1\n"
    assert again.stacks() == again.stacks("golden") == [STACK]
    assert again.stacks("gold") == []


def test_any_bytes_come_back(backend: Backend) -> None:
    data = bytes(range(256)) * 5000 + "héé".encode()
    backend.write(STACK, data, allowed)
    assert backend.read(STACK) == data


def test_missing_checkpoint_is_named(backend: Backend) -> None:
    with pytest.raises(FileNotFoundError, match=r"golden/dev\.json"):
        backend.read(STACK)


def test_neighbours_with_similar_names_are_left_alone(backend: Backend) -> None:
    for name in ("dev", "dev2", "d_v", "dxv"):
        backend.write(StackReference("golden", name), name.encode(), allowed)
        backend.add_history(StackReference("golden", name), {"message": name}, b"{}", 1)
    backend.remove(StackReference("golden", "d_v"))
    backend.remove(STACK)
    assert [s.name for s in backend.stacks()] == ["dev2", "dxv"]
    assert backend.history(StackReference("golden", "dev2"))
    assert backend.history(StackReference("golden", "dxv"))
    assert not backend.history(STACK)


def test_removed_stack_keeps_its_backups_unless_told(backend: Backend) -> None:
    backend.write(STACK, b"first", allowed)
    backend.add_backup(STACK, b"first", 5)
    backend.write_tags(STACK, {"a": "1"})
    backend.remove(STACK)
    assert backend.blobs.keys("stacks") == ["stacks/golden/dev.json.bak"]
    assert backend.blobs.keys("backups") == ["backups/golden/dev/dev.5.json"]
    backend.write(STACK, b"second", allowed)
    backend.remove(STACK, remove_backups=True)
    assert backend.blobs.keys("stacks") == backend.blobs.keys("backups") == []


def test_history_is_newest_first_and_paged(backend: Backend) -> None:
    for number in range(5):
        backend.add_history(STACK, {"message": str(number)}, b"{}", 1_795_253_196_000_000_000 + number)
    assert [u["message"] for u in backend.history(STACK)] == ["4", "3", "2", "1", "0"]
    assert [u["message"] for u in backend.history(STACK, 2, 2)] == ["2", "1"]
    assert backend.history(STACK, 2, 9) == []


def test_damaged_history_names_the_file(backend: Backend) -> None:
    backend.add_history(STACK, {}, b"{}", 1)
    backend.blobs.put("history/golden/dev/dev-1.history.json", b"{")
    with pytest.raises(BackendError, match=r"dev-1\.history\.json"):
        backend.history(STACK)


def test_tags_are_stored_as_the_official_engine_stores_them(backend: Backend) -> None:
    backend.write_tags(STACK, {"b": "2", "a": "1"})
    assert json.loads(content(backend, "stacks/golden/dev.pulumi-tags")) == {"version": 1, "tags": {"a": "1", "b": "2"}}
    backend.write_tags(STACK, {})
    assert backend.tags(STACK) == {}


def test_writer_that_lost_its_lease_replaces_nothing(backend: Backend) -> None:
    backend.write(STACK, b"first", allowed)

    def stale() -> None:
        raise StaleLease("somebody else works on this stack")

    with pytest.raises(StaleLease):
        backend.write(STACK, b"second", stale)
    assert backend.read(STACK) == b"first"


def test_writer_over_another_checkpoint_replaces_nothing(backend: Backend) -> None:
    backend.write(STACK, b"first", allowed)
    backend.write(STACK, b"theirs", allowed)
    with pytest.raises(StaleLease, match="meanwhile"):
        backend.write(STACK, b"second", allowed, over=b"first")
    assert backend.read(STACK) == b"theirs"


def test_writer_without_its_lock_replaces_nothing(backend: Backend) -> None:
    backend.write(STACK, b"first", allowed)
    backend.blobs.put(LOCK, b"{}")
    backend.write(STACK, b"second", allowed, over=b"first", guard=LOCK)
    backend.blobs.delete(LOCK)
    with pytest.raises(StaleLease, match="pulumi cancel"):
        backend.write(STACK, b"third", allowed, over=b"second", guard=LOCK)
    assert backend.read(STACK) == b"second"


@pytest.mark.parametrize("kind", ["s3", "postgres"], indirect=True)
@pytest.mark.integration
def test_store_itself_refuses_a_writer_that_was_overtaken_at_the_last_moment(backend: Backend) -> None:
    """The gap a file system has: between the last question and the write."""
    backend.write(STACK, b"first", allowed)
    seen = backend.blobs.get("stacks/golden/dev.json")
    backend.blobs.put("stacks/golden/dev.json", b"theirs")
    with pytest.raises(StaleLease, match="replaced by somebody else"):
        backend.blobs.replace("stacks/golden/dev.json", b"mine", over=seen, check=allowed)
    with pytest.raises(StaleLease, match="replaced by somebody else"):
        backend.blobs.replace("stacks/golden/dev.json", b"mine", over=None, check=allowed)
    assert backend.read(STACK) == b"theirs"


def test_what_exists_is_not_created_again(backend: Backend) -> None:
    backend.blobs.put(LOCK, b"{}")
    backend.blobs.create("some/key", b"first", guard=LOCK)
    with pytest.raises(FileExistsError):
        backend.blobs.create("some/key", b"second", guard=LOCK)
    assert content(backend, "some/key") == b"first"


def test_nothing_is_created_without_its_guard(backend: Backend) -> None:
    with pytest.raises(StaleLease):
        backend.blobs.create("some/key", b"first", guard=LOCK)
    assert backend.blobs.get("some/key") is None


def test_one_of_many_creators_wins(opener: Callable[[], Backend]) -> None:
    start, won = threading.Barrier(6), []

    def attempt(number: int) -> None:
        blobs = opener().blobs
        start.wait(60)
        try:
            blobs.create("some/key", str(number).encode(), guard="")
        except FileExistsError:
            return
        won.append(str(number).encode())

    threads = [threading.Thread(target=attempt, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert won == [content(opener(), "some/key")]


def test_locations_carry_no_password(backend: Backend) -> None:
    where = backend.blobs.location("stacks/golden/dev.json")
    assert ".pulumi/stacks/golden/dev.json" in where
    assert where.partition(":")[0] in ("file", "s3", "postgres")


def test_more_keys_than_one_listing_holds(backend: Backend) -> None:
    expected = [f"history/golden/dev/{number:04d}" for number in range(1005)]  # S3 lists 1,000 at a time
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda key: backend.blobs.put(key, b"x"), expected))
    assert backend.blobs.keys("history/golden/dev") == expected
