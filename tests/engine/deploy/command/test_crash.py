"""A process dies in the middle of an update; the next command finishes what it left.

The dead process is a copy of the backend taken while its update waits inside the provider: what a power cut leaves.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pulumi
import pytest
from pulumi import automation
from pulumi.automation.errors import CommandError, ConcurrentUpdateError

from engine.deploy.command.loop import UpdateCancellation
from engine.model.errors import StaleLease
from tests.fakes.scenario import Thing

WAIT_SECONDS = 60

# A program that is cancelled leaves the SDK's language server an event loop it does not close.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")


class DeadExecutor:
    """A fence that knows that one executor is dead, and that can close."""

    token = 1

    def __init__(self, dead: str = "") -> None:
        self.dead = dead
        self.closed = False

    def check(self) -> None:
        if self.closed:
            raise StaleLease("somebody else works on this stack")

    def holder_is_dead(self, lock_owner: str) -> bool:
        return lock_owner == self.dead


def program() -> None:
    first = Thing("first", {"size": 1})
    Thing("web", {"size": 1, "password": "plain"}, pulumi.ResourceOptions(depends_on=[first]))


class Interrupted:
    """An update that waits inside the provider's `method` for "web", until it is released."""

    def __init__(self, place: Any, method: str, run: Callable[[], Any]) -> None:
        self._place = place
        self._gate = asyncio.Event()
        self._arrived = threading.Event()
        self._key = (method, "web")
        place.cloud.gates[self._key] = self._gate
        place.cloud.arrived[self._key] = self._arrived
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(run,))

    def _run(self, run: Callable[[], Any]) -> None:
        try:
            run()
        except Exception as err:  # noqa: BLE001 — handed to the test
            self.error = err

    def __enter__(self) -> Interrupted:
        self._thread.start()
        assert self._arrived.wait(WAIT_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        del self._place.cloud.gates[self._key]
        self._place.loop.run(self._open())
        self._thread.join(WAIT_SECONDS)
        assert not self._thread.is_alive()

    async def _open(self) -> None:
        self._gate.set()


@pytest.fixture
def crashed(place: Any, tmp_path: Path) -> Iterator[Any]:
    """A place whose stack was left by a process that died just after "web" was made in the cloud."""
    doomed = place.stack(program, command=place.command(executor="doomed"))
    wreck = tmp_path / "wreck"
    with Interrupted(place, "created", doomed.up):
        shutil.copytree(place.root / "backend", wreck)
    place.cloud.calls.clear()
    place.cloud.created = 2
    shutil.rmtree(place.root / "backend")
    shutil.copytree(wreck, place.root / "backend")
    yield place


def journals(place: Any) -> list[Path]:
    return sorted((place.state / "journals").rglob("*.journal"))


def locks(place: Any) -> list[Path]:
    return sorted((place.state / "locks").rglob("*.json"))


def test_journal_exists_only_while_an_update_has_effects(place: Any) -> None:
    stack = place.stack(program)
    with Interrupted(place, "create", stack.up):
        assert len(journals(place)) == 1
        assert len(locks(place)) == 1
    assert not journals(place)
    assert not locks(place)


def test_lock_of_a_dead_executor_is_broken_and_its_journal_finished(crashed: Any) -> None:
    stack = crashed.stack(program, command=crashed.command(fence=DeadExecutor("doomed"), executor="next"))
    stack.up()
    assert len(crashed.cloud.made("web")) == 1  # adopted, not made again
    assert crashed.cloud.created == 2
    assert not journals(crashed)
    resources = stack.export_stack().deployment["resources"]
    assert len([r for r in resources if r["type"] == "fake:index:Thing"]) == 2
    assert "pending_operations" not in stack.export_stack().deployment


def test_export_after_a_crash_shows_the_pending_operation(crashed: Any) -> None:
    result = crashed.run("stack", "export", "--stack", "dev", command=crashed.command(fence=DeadExecutor("doomed")))
    deployment = json.loads(result.stdout)["deployment"]
    assert [(o["type"], o["resource"]["urn"].rpartition("::")[2]) for o in deployment["pending_operations"]] == [
        ("creating", "web")
    ]
    assert any(r["urn"].endswith("::first") for r in deployment["resources"])
    assert not journals(crashed)
    assert not locks(crashed)


def test_lock_of_a_live_process_is_respected_and_cancel_breaks_it(crashed: Any) -> None:
    stack = crashed.stack(program)  # knows nothing of executors; the lock's process runs: this one
    with pytest.raises(ConcurrentUpdateError, match=r"currently locked by 1 lock\(s\)"):
        stack.up()
    assert journals(crashed)  # reading verbs leave a live update's journal alone
    assert "pending_operations" not in stack.export_stack().deployment
    stack.cancel()
    assert not journals(crashed)
    assert len(stack.export_stack().deployment["pending_operations"]) == 1
    stack.up()
    assert crashed.cloud.created == 2


def test_torn_last_line_is_ignored(crashed: Any) -> None:
    (journal,) = journals(crashed)
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"sequence": 99, "kind": "succ')
    stack = crashed.stack(program, command=crashed.command(fence=DeadExecutor("doomed")))
    assert len(stack.export_stack().deployment["pending_operations"]) == 1


def test_journal_torn_before_its_first_entry_is_dropped(crashed: Any) -> None:
    (journal,) = journals(crashed)
    journal.write_bytes(b'{"journal": 1, "ba')
    stack = crashed.stack(program, command=crashed.command(fence=DeadExecutor("doomed")))
    assert "resources" not in (stack.export_stack().deployment or {})
    assert not journals(crashed)


def test_damaged_journal_stops_everything_with_what_to_do(crashed: Any) -> None:
    (journal,) = journals(crashed)
    lines = journal.read_bytes().split(b"\n")
    journal.write_bytes(b"\n".join([lines[0], b"{broken", *lines[1:]]))
    before = (crashed.state / "stacks/golden/dev.json").read_bytes()
    with pytest.raises(CommandError, match=r"damaged at line 2"):
        crashed.stack(program, command=crashed.command(fence=DeadExecutor("doomed"))).up()
    assert (crashed.state / "stacks/golden/dev.json").read_bytes() == before
    assert journals(crashed)


def test_journal_over_another_checkpoint_stops_everything(crashed: Any) -> None:
    path = crashed.state / "stacks/golden/dev.json"
    path.write_bytes(path.read_bytes() + b"\n")  # as another engine would have replaced it
    with pytest.raises(CommandError, match="replaced since"):
        crashed.stack(program, command=crashed.command(fence=DeadExecutor("doomed"))).up()


def test_journal_whose_checkpoint_was_stored_is_not_replayed_twice(place: Any, tmp_path: Path) -> None:
    stack = place.stack(program)
    kept = tmp_path / "kept.journal"
    with Interrupted(place, "created", stack.up):
        (journal,) = journals(place)
        kept.hardlink_to(journal)  # the file as it is when its update ends
    stored = (place.state / "stacks/golden/dev.json").read_bytes()
    journal.write_bytes(kept.read_bytes())  # died after storing, before cleaning up
    stack.export_stack()
    assert not journals(place)
    assert (place.state / "stacks/golden/dev.json").read_bytes() == stored


def test_cancelled_update_stops_writing_and_leaves_the_stack_to_the_next(place: Any) -> None:
    """`pulumi cancel` from elsewhere removes the lock: the update notices and stops."""
    stack = place.stack(program)
    interrupted = Interrupted(place, "create", stack.up)
    with interrupted:
        for path in locks(place):
            path.unlink()
    assert isinstance(interrupted.error, StaleLease)
    assert len(journals(place)) == 1
    stack.up()
    assert len(place.cloud.made("web")) == 1


def test_cancel_in_this_process_asks_the_update_to_stop_and_save(place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stack = place.stack(program)
    noticed = threading.Event()

    class Watched(UpdateCancellation):
        @property
        def level(self) -> int:
            if level := super().level:
                noticed.set()
            return level

    monkeypatch.setattr("engine.deploy.command.operations.UpdateCancellation", Watched)
    interrupted = Interrupted(place, "create", stack.up)
    with interrupted:
        stack.cancel()
        assert noticed.wait(WAIT_SECONDS)
        assert locks(place)  # the update gives its lock back itself
    assert isinstance(interrupted.error, CommandError)
    assert "update cancelled" in str(interrupted.error)
    assert not journals(place)
    stack.up()
    assert len(place.cloud.made("web")) == 1


def test_closed_fence_writes_nothing_more(place: Any) -> None:
    fence = DeadExecutor()
    stack = place.stack(program, command=place.command(fence=fence))
    before = (place.state / "stacks/golden/dev.json").read_bytes()
    interrupted = Interrupted(place, "create", stack.up)
    with interrupted:
        size = journals(place)[0].stat().st_size
        fence.closed = True
    assert isinstance(interrupted.error, StaleLease)
    assert (place.state / "stacks/golden/dev.json").read_bytes() == before
    assert journals(place)[0].stat().st_size == size
    assert not locks(place)


def test_killed_process_leaves_a_lock_that_the_same_host_breaks(crashed: Any) -> None:
    (lock,) = locks(crashed)
    content = json.loads(lock.read_bytes())
    assert {"pid", "username", "hostname", "timestamp"} <= set(content)
    lock.write_text(json.dumps({**content, "started": content["started"] - 1000}))  # that process is gone
    stack = crashed.stack(program)
    assert len(stack.export_stack().deployment["pending_operations"]) == 1


def test_lock_of_the_official_engine_is_never_broken(place: Any) -> None:
    stack = place.stack(program)
    folder = place.state / "locks/organization/golden/dev"
    folder.mkdir(parents=True, exist_ok=True)
    text = '{"pid":1,"username":"root","hostname":"vm","timestamp":"2026-11-21T10:50:40Z"}'
    (folder / "6f0b2a4e.json").write_text(text)
    with pytest.raises(ConcurrentUpdateError) as caught:
        stack.up()
    assert "created by root@vm (pid 1) at 2026-11-21T10:50:40Z" in str(caught.value)
    listed = place.workspace().list_stacks()
    assert [s.update_in_progress for s in listed] == [True]
    stack.cancel()
    stack.up()


def test_error_of_an_update_is_the_sdks_own(place: Any) -> None:
    place.cloud.fail("create", "web", "no capacity left")
    stack = place.stack(program)
    with pytest.raises(automation.CommandError, match="no capacity left"):
        stack.up()
    assert stack.info().result == "failed"
    assert [r["urn"].rpartition("::")[2] for r in stack.export_stack().deployment["resources"]][-1:] == ["first"]


def test_program_that_hangs_does_not_hold_up_an_update_that_lost_its_lease(place: Any) -> None:
    """The update ends at once; the program's thread finds out at its next call of the engine."""
    fence = DeadExecutor()
    hanging, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def hangs() -> None:
        try:
            Thing("first", {"size": 1})
            hanging.set()
            assert go_on.wait(WAIT_SECONDS)
            Thing("never", {"size": 1})
        finally:
            ended.set()

    stack = place.stack(hangs, command=place.command(fence=fence))
    errors: list[BaseException] = []

    def update() -> None:
        try:
            stack.up()
        except StaleLease as err:
            errors.append(err)

    thread = threading.Thread(target=update)
    thread.start()
    assert hanging.wait(WAIT_SECONDS)
    fence.closed = True
    thread.join(WAIT_SECONDS)
    assert not thread.is_alive()
    assert len(errors) == 1
    go_on.set()
    assert ended.wait(WAIT_SECONDS)
    assert not place.cloud.made("never")
