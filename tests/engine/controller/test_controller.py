"""The durable queue inside one process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from engine.controller.controller import Controller, ControllerSettings
from engine.controller.keeper import LeaseKeeper
from engine.controller.result import Done, RequeueAfter, Result
from engine.model.clock import SystemClock
from engine.model.errors import StaleLease
from engine.model.fence import Fence
from engine.store import leases
from engine.store.database import Database
from tests.fakes.clock import FakeClock

WAIT = 20.0


class Scripted:
    """`Operations` that do what the test says."""

    def __init__(self) -> None:
        self.perform: Callable[[str, Fence], Result] = lambda id, fence: Done()
        self.waiting: list[tuple[str, str, datetime]] = []
        self.given_up: list[tuple[str, str]] = []
        self.began: list[str] = []
        self.ended = threading.Semaphore(0)
        self.now_running: set[str] = set()

    def run(self, operation_id: str, fence: Fence) -> Result:
        fence.check()
        self.began.append(operation_id)
        try:
            return self.perform(operation_id, fence)
        finally:
            self.ended.release()

    def unfinished(self) -> Sequence[tuple[str, str, datetime]]:
        return self.waiting

    def give_up(self, operation_id: str, reason: str) -> None:
        self.given_up.append((operation_id, reason))

    def wait_for(self, operations: int) -> None:
        for _ in range(operations):
            assert self.ended.acquire(timeout=WAIT), f"only {self.began} began"


@pytest.fixture
def operations() -> Scripted:
    return Scripted()


@pytest.fixture
def controller(store: Database, operations: Scripted, tmp_path: Path) -> Iterator[Controller]:
    system = f"sqlite:///{tmp_path}/dbos.db" if store.is_sqlite else store.url
    settings = ControllerSettings(system, "w1", lease_seconds=30.0, concurrency=8)
    controller = Controller(settings, store, SystemClock(), operations)
    controller.start()
    yield controller
    controller.stop(grace_seconds=0)


def test_one_at_a_time_per_key_and_in_order(controller: Controller, operations: Scripted) -> None:
    running: set[str] = set()
    most = [0]
    lock = threading.Lock()
    both = threading.Barrier(2, timeout=WAIT)

    def perform(operation_id: str, fence: Fence) -> Result:
        key = operation_id[0]
        with lock:
            assert key not in running, "two operations on one key"
            running.add(key)
            most[0] = max(most[0], len(running))
        if operation_id.endswith("0"):
            both.wait()  # passes only if both keys run at the same time
        with lock:
            running.discard(key)
        return Done()

    operations.perform = perform
    for number in range(4):
        for key in "ab":
            controller.submit(f"{key}{number}", key)
    operations.wait_for(8)
    assert [i for i in operations.began if i[0] == "a"] == ["a0", "a1", "a2", "a3"]
    assert most[0] == 2


def test_an_id_submitted_again_runs_once(controller: Controller, operations: Scripted) -> None:
    for _ in range(3):
        controller.submit("op", "k")
    operations.wait_for(1)
    controller.submit("op", "k")
    controller.submit("last", "k")
    operations.wait_for(1)
    assert operations.began == ["op", "last"]


def test_an_operation_that_has_to_wait_is_tried_again(controller: Controller, operations: Scripted) -> None:
    def perform(operation_id: str, fence: Fence) -> Result:
        if len(operations.began) < 3:
            return RequeueAfter(SystemClock().now() + timedelta(seconds=0.05), "not yet")
        return Done()

    operations.perform = perform
    controller.submit("op", "k")
    operations.wait_for(3)


def test_a_crash_in_an_operation_is_recorded_and_frees_its_key(controller: Controller, operations: Scripted) -> None:
    def perform(operation_id: str, fence: Fence) -> Result:
        if operation_id == "bad":
            raise LookupError("a bug")
        return Done()

    operations.perform = perform
    controller.submit("bad", "k")
    controller.submit("good", "k")
    operations.wait_for(2)
    assert operations.given_up == [("bad", "LookupError: a bug")]


def test_what_was_lost_before_the_queue_is_submitted_by_supervision(
    controller: Controller, operations: Scripted
) -> None:
    """The process died between our commit and DBOS's."""
    operations.waiting = [("lost", "k", SystemClock().now() - timedelta(seconds=60))]
    operations.wait_for(1)
    assert operations.began == ["lost"]


def test_an_operation_whose_workflow_ended_without_result_is_given_up(
    controller: Controller, operations: Scripted
) -> None:
    controller.submit("op_1", "k")
    controller.submit("op_2", "k")  # when it begins, the workflow of the first has ended
    operations.wait_for(2)
    operations.waiting = [("op_1", "k", SystemClock().now() - timedelta(seconds=60))]
    controller.supervise()
    assert operations.given_up[0][0] == "op_1"


def test_a_second_process_of_the_same_name_takes_the_lease_and_the_first_notices(
    store: Database, clock: FakeClock
) -> None:
    died: list[str] = []
    first = LeaseKeeper(store, clock, owner="w1", ttl_seconds=30, on_death=lambda: died.append("w1"))
    liveness = first.take(leases.executor_lease("w1"))
    held = first.take("stack:s")
    assert liveness is not None and held is not None
    assert first.take("stack:s") is None, "another thread of this process has it"
    clock.advance(20)
    first.renew_all()
    clock.advance(20)
    held.check()
    with store.write() as session:
        leases.expire_executor(session, "w1", clock.now())
    second = LeaseKeeper(store, clock, owner="w2", ttl_seconds=30, on_death=lambda: died.append("w2"))
    taken = second.take("stack:s")
    assert taken is not None and taken.token == held.token + 1
    first.renew_all()
    assert died == ["w1"]
    with pytest.raises(StaleLease):
        held.check()
    taken.check()
    first.give_back(held)
    taken.check()
    with store.read() as session:
        row = leases.get(session, "stack:s")
        assert row is not None and row.owner == "w2" and row.expires_at > clock.now()
