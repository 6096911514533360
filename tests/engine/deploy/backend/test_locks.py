"""Locks: who holds one, who may break it, and that two who try at once never both succeed."""

from __future__ import annotations

import json
import socket
import threading
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from engine.deploy.backend.file import FileBackend, StackReference
from engine.deploy.backend.locks import LockHolder, StackLock, StackLocked, acquire, lock_files, lock_folder
from engine.model.errors import StaleLease
from engine.model.fence import NoFence

STACK = StackReference("golden", "dev")
NOW = datetime(2026, 11, 21, 10, 50, 40, tzinfo=UTC)


@pytest.fixture
def backend(tmp_path: Path) -> FileBackend:
    return FileBackend(tmp_path, f"file://{tmp_path}")


class Dead(NoFence):
    def holder_is_dead(self, lock_owner: str) -> bool:
        return lock_owner == "worker-1"


def take(backend: FileBackend, lock_id: str, executor: str = "worker-1", fence: NoFence | None = None) -> StackLock:
    holder = LockHolder.current(executor, NOW)
    return acquire(backend, STACK, holder=holder, lock_id=lock_id, fence=fence or NoFence())


def test_second_taker_is_refused_in_the_official_words(backend: FileBackend) -> None:
    first = take(backend, "a")
    with pytest.raises(StackLocked) as caught:
        take(backend, "b")
    path = lock_folder(backend, STACK) / "a.json"
    assert str(caught.value).startswith(
        "the stack is currently locked by 1 lock(s). Either wait for the other process(es) to end or delete the lock "
        f"file with `pulumi cancel`.\n  file://{path}: created by "
    )
    assert str(caught.value).endswith("at 2026-11-21T10:50:40Z")
    first.release()
    take(backend, "b")


def test_content_has_the_official_members_first(backend: FileBackend) -> None:
    content = json.loads(take(backend, "a").path.read_text())
    assert list(content)[:4] == ["pid", "username", "hostname", "timestamp"]
    assert (content["executor"], content["hostname"]) == ("worker-1", socket.gethostname())


def test_lock_of_a_dead_lease_is_broken(backend: FileBackend) -> None:
    take(backend, "a")
    take(backend, "b", "worker-2", Dead())
    assert [p.name for p in lock_files(backend, STACK)] == ["b.json"]


def test_lock_of_a_gone_process_is_broken_on_its_own_host_only(backend: FileBackend) -> None:
    gone = replace(LockHolder.current("", NOW), started=1.0)
    assert gone.is_dead(NoFence())
    assert not replace(gone, hostname="elsewhere").is_dead(NoFence())
    assert not replace(gone, executor=None).is_dead(NoFence())  # the official engine's: never ours to judge


def test_half_written_lock_is_held(backend: FileBackend) -> None:
    folder = lock_folder(backend, STACK)
    folder.mkdir(parents=True)
    (folder / "a.json").write_text('{"pid": 1')
    with pytest.raises(StackLocked, match="unknown@unknown"):
        take(backend, "b")


def test_removed_lock_closes_its_holders_fence(backend: FileBackend) -> None:
    lock = take(backend, "a")
    lock.check()
    lock.path.unlink()
    with pytest.raises(StaleLease, match="pulumi cancel"):
        lock.check()
    lock.release()


def test_at_most_one_of_many_at_once_succeeds(backend: FileBackend) -> None:
    start = threading.Barrier(8)
    won: list[StackLock] = []

    def attempt(number: int) -> None:
        start.wait(10)
        try:
            won.append(take(backend, f"lock-{number}"))
        except StackLocked:
            return

    threads = [threading.Thread(target=attempt, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(won) <= 1
    assert len(lock_files(backend, STACK)) == len(won)
