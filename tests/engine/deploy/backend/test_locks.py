"""Locks: who holds one, who may break it, and that two who try at once never both succeed."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from engine.deploy.backend.locks import LockHolder, StackLock, StackLocked, acquire, break_locks, lock_key, lock_keys
from engine.deploy.backend.stacks import Backend, StackReference
from engine.model.errors import StaleLease
from engine.model.fence import NoFence

# The first test that needs the S3 server may have to build it.
pytestmark = pytest.mark.timeout(900)

STACK = StackReference("golden", "dev")
NOW = datetime(2026, 11, 21, 10, 50, 40, tzinfo=UTC)


class Dead(NoFence):
    def holder_is_dead(self, lock_owner: str) -> bool:
        return lock_owner == "worker-1"


def take(
    backend: Backend,
    lock_id: str,
    executor: str = "worker-1",
    fence: NoFence | None = None,
    stack: StackReference = STACK,
) -> StackLock:
    holder = LockHolder.current(executor, NOW)
    return acquire(backend, stack, holder=holder, lock_id=lock_id, fence=fence or NoFence())


def stored(backend: Backend, key: str) -> bytes:
    blob = backend.blobs.get(key)
    assert blob is not None
    return blob.data


def test_second_taker_is_refused_in_the_official_words(backend: Backend) -> None:
    first = take(backend, "a")
    with pytest.raises(StackLocked) as caught:
        take(backend, "b")
    assert str(caught.value).startswith(
        "the stack is currently locked by 1 lock(s). Either wait for the other process(es) to end or delete the lock "
        f"file with `pulumi cancel`.\n  {backend.blobs.location(first.key)}: created by "
    )
    assert str(caught.value).endswith("at 2026-11-21T10:50:40Z")
    first.release()
    take(backend, "b")


def test_content_has_the_official_members_first(backend: Backend) -> None:
    content = json.loads(stored(backend, take(backend, "a").key))
    assert list(content)[:4] == ["pid", "username", "hostname", "timestamp"]
    assert (content["executor"], content["hostname"]) == ("worker-1", socket.gethostname())


def test_lock_of_a_dead_lease_is_broken(backend: Backend) -> None:
    take(backend, "a")
    take(backend, "b", "worker-2", Dead())
    assert lock_keys(backend, STACK) == [lock_key(STACK, "b.json")]


def test_lock_of_a_gone_process_is_broken_on_its_own_host_only(backend: Backend) -> None:
    gone = replace(LockHolder.current("", NOW), started=1.0)
    assert gone.is_dead(NoFence())
    assert not replace(gone, hostname="elsewhere").is_dead(NoFence())
    assert not replace(gone, executor=None).is_dead(NoFence())  # the official engine's: never ours to judge


def test_half_written_lock_is_held(backend: Backend) -> None:
    backend.blobs.put(lock_key(STACK, "a.json"), b'{"pid": 1')
    with pytest.raises(StackLocked, match="unknown@unknown"):
        take(backend, "b")


def test_removed_lock_closes_its_holders_fence(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("engine.deploy.backend.locks.time.monotonic", lambda: now)
    lock = take(backend, "a")
    lock.check()
    break_locks(backend, STACK)
    now += backend.blobs.probe_seconds
    with pytest.raises(StaleLease, match="pulumi cancel"):
        lock.check()
    lock.release()


def test_cancel_breaks_half_written_locks_of_this_stack_only(backend: Backend) -> None:
    backend.blobs.put(lock_key(STACK, "a.json"), b"{")
    other = take(backend, "b", stack=StackReference("golden", "dev2"))
    break_locks(backend, STACK)
    assert lock_keys(backend, STACK) == []
    other.check()


def keep_folder(backend: Backend) -> None:
    """The S3 server of the tests deletes a folder with its last object, even while another is written into it."""
    backend.blobs.put(lock_key(STACK, "keep"), b"")


def test_at_most_one_of_many_at_once_succeeds(opener: Callable[[], Backend]) -> None:
    keep_folder(opener())
    start = threading.Barrier(8)
    won: list[StackLock] = []
    backends = [opener() for _ in range(8)]

    def attempt(number: int) -> None:
        start.wait(60)
        try:
            won.append(take(backends[number], f"lock-{number}"))
        except StackLocked:
            return

    threads = [threading.Thread(target=attempt, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(won) <= 1
    assert len(lock_keys(backends[0], STACK)) == len(won)


def test_winner_of_every_round_is_alone(opener: Callable[[], Backend]) -> None:
    """Workers that take, check and give back in turn never hold the stack together."""
    keep_folder(opener())
    inside: list[int] = []
    overlaps: list[list[int]] = []
    rounds: list[int] = []

    def work(number: int) -> None:
        backend = opener()
        for turn in range(8):
            try:
                lock = take(backend, f"{number}-{turn}")
            except StackLocked:
                continue
            inside.append(number)
            lock.check()
            if inside != [number]:
                overlaps.append(list(inside))
            rounds.append(number)
            inside.remove(number)
            lock.release()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert rounds
    assert not overlaps
    assert lock_keys(opener(), STACK) == []
