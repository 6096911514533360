"""Whole updates on every kind of backend: what is stored, what a dead process leaves, who may go on.

The dead process is a copy of the backend taken while its update waits inside the provider: what a power cut leaves.
"""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pulumi
import pytest
from pulumi import automation
from pulumi.automation.errors import ConcurrentUpdateError

from engine.deploy.backend.blobs import BackendError
from engine.deploy.backend.locks import lock_keys
from engine.deploy.backend.stack_journal import journal_key
from engine.deploy.backend.stacks import Backend, StackReference
from engine.deploy.command import EmbeddedPulumi, EngineLoop
from engine.model.clock import SystemClock
from engine.model.errors import StaleLease
from tests.fakes.provider import FakeProviders, InMemoryCloud
from tests.fakes.scenario import Thing

WAIT_SECONDS = 60
DEV = StackReference("golden", "dev")
FOLDERS = ("stacks", "locks", "journals", "history", "backups")

pytestmark = [
    # A program that is cancelled leaves the SDK's language server an event loop it does not close.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    # The first test that needs the S3 server may have to build it.
    pytest.mark.timeout(900),
]


class Leases:
    """A fence that knows dead executors, and that can close."""

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
    Thing("web", {"size": 1, "password": pulumi.Output.secret("hush")}, pulumi.ResourceOptions(depends_on=[first]))


@dataclass
class Works:
    """Workers on one backend."""

    backend: Backend
    url: str
    env: Mapping[str, str]
    root: Path
    loop: EngineLoop
    salt: str
    cloud: InMemoryCloud = field(default_factory=InMemoryCloud)

    def stack(self, executor: str, fence: Leases | None = None) -> automation.Stack:
        """The stack as one worker sees it."""
        work = self.root / "work" / executor
        work.mkdir(parents=True, exist_ok=True)
        command = EmbeddedPulumi(
            providers=FakeProviders(self.cloud),
            clock=SystemClock(),
            fence=fence or Leases(),
            environment={"HOME": str(self.root / "home"), "USER": "somebody", **self.env},
            passphrase_salt=self.salt,
            executor_id=executor,
            loop=self.loop,
        )
        workspace = automation.LocalWorkspace(
            work_dir=str(work),
            program=program,
            pulumi_command=command,
            project_settings=automation.ProjectSettings(name="golden", runtime="python"),
            env_vars={"PULUMI_BACKEND_URL": self.url, "PULUMI_CONFIG_PASSPHRASE": "x"},
        )
        return automation.Stack.create_or_select("dev", workspace)

    def copy(self) -> dict[str, bytes]:
        """All that is stored."""
        keys = [key for folder in FOLDERS for key in self.backend.blobs.keys(folder)]
        blobs = {key: self.backend.blobs.get(key) for key in keys}
        return {key: blob.data for key, blob in blobs.items() if blob is not None}

    def restore(self, copy: Mapping[str, bytes]) -> None:
        """Put everything back as it was."""
        for key in set(self.copy()) - set(copy):
            self.backend.blobs.delete(key)
        for key, data in copy.items():
            self.backend.blobs.put(key, data)

    @contextmanager
    def interrupted(self, method: str, run: Callable[[], Any]) -> Iterator[list[BaseException]]:
        """An update that waits inside the provider's `method` for "web" during the block; its error comes out."""
        gate, arrived, errors = asyncio.Event(), threading.Event(), list[BaseException]()
        self.cloud.gates[method, "web"], self.cloud.arrived[method, "web"] = gate, arrived

        def update() -> None:
            try:
                run()
            except Exception as err:  # noqa: BLE001 — handed to the test
                errors.append(err)

        async def go_on() -> None:
            gate.set()

        thread = threading.Thread(target=update)
        thread.start()
        assert arrived.wait(WAIT_SECONDS), errors
        try:
            yield errors
        finally:
            del self.cloud.gates[method, "web"]
            self.loop.run(go_on())
            thread.join(WAIT_SECONDS)
        assert not thread.is_alive()


@pytest.fixture
def works(
    opener: Callable[[], Backend], place: tuple[str, Mapping[str, str]], tmp_path: Path, command_loop: EngineLoop,
    salt: str,
) -> Iterator[Works]:  # fmt: skip
    yield Works(opener(), *place, tmp_path, command_loop, salt)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def names(stack: automation.Stack) -> list[str]:
    resources = stack.export_stack().deployment.get("resources", [])
    return [r["urn"].rpartition("::")[2] for r in resources if r["type"] == "fake:index:Thing"]


def test_update_leaves_what_the_official_engine_leaves(works: Works) -> None:
    stack = works.stack("one")
    stack.up()
    assert stack.up().summary.resource_changes == {"same": 3}
    keys = works.copy()
    folders = sorted({key.split("/")[0] for key in keys})
    assert folders == ["backups", "history", "stacks"]
    assert [k for k in keys if k.startswith("stacks/")] == ["stacks/golden/dev.json", "stacks/golden/dev.json.bak"]
    assert len([k for k in keys if k.endswith(".history.json")]) == 2
    checkpoint = json.loads(keys["stacks/golden/dev.json"])
    assert checkpoint["checkpoint"]["stack"] == "organization/golden/dev"
    assert b"hush" not in b"".join(keys.values())
    assert works.backend.stacks() == [DEV]
    stack.destroy()
    stack.workspace.remove_stack("dev")
    assert works.backend.stacks() == []


def test_second_worker_waits_for_the_first(works: Works) -> None:
    one, two = works.stack("one"), works.stack("two")
    with works.interrupted("create", one.up) as errors:
        assert len(lock_keys(works.backend, DEV)) == 1
        with pytest.raises(ConcurrentUpdateError, match=r"currently locked by 1 lock\(s\)"):
            two.up()
    assert not errors
    assert two.up().summary.resource_changes == {"same": 3}


@pytest.mark.parametrize("method", ["create", "created"])
def test_next_worker_finishes_what_a_dead_one_left(works: Works, method: str) -> None:
    doomed = works.stack("doomed")
    with works.interrupted(method, doomed.up):
        wreck = works.copy()
        made = dict(works.cloud.things)
    works.restore(wreck)
    works.cloud.things.clear()
    works.cloud.things.update(made)
    stack = works.stack("next", Leases("doomed"))
    pending = stack.export_stack().deployment["pending_operations"]
    assert [(o["type"], o["resource"]["urn"].rpartition("::")[2]) for o in pending] == [("creating", "web")]
    assert names(stack) == ["first"]
    assert not works.backend.logs.exists(journal_key(DEV))
    stack.up()
    assert len(works.cloud.made("web")) == 1
    assert names(stack) == ["first", "web"]
    assert not {"locks", "journals"} & {key.split("/")[0] for key in works.copy()}


def test_worker_that_was_overtaken_writes_nothing_when_it_wakes_up(works: Works) -> None:
    """Its own lease looks valid to it until the end: only the backend can tell."""
    late = works.stack("late")
    with works.interrupted("created", late.up) as errors:
        stack = works.stack("next", Leases("late"))
        stack.up()
        stored = works.copy()
    assert [type(e) for e in errors] == [StaleLease]
    after = works.copy()
    strays = {k for k in after if k.startswith("journals/")} - set(stored)
    assert {k: v for k, v in after.items() if k not in strays} == stored
    assert not works.backend.logs.exists(journal_key(DEV))
    assert len(works.cloud.made("web")) == 1


def test_cancel_stops_the_holder_before_its_next_write(works: Works) -> None:
    stack = works.stack("one")
    with works.interrupted("create", stack.up) as errors:
        for key in lock_keys(works.backend, DEV):
            works.backend.blobs.delete(key)
        checkpoint = works.backend.read(DEV)
    assert [type(e) for e in errors] == [StaleLease]
    assert works.backend.read(DEV) == checkpoint
    stack.up()
    assert len(works.cloud.made("web")) == 1


def test_checkpoint_replaced_by_another_engine_stops_the_holder(works: Works) -> None:
    stack = works.stack("one")
    with works.interrupted("create", stack.up) as errors:
        works.backend.blobs.put("stacks/golden/dev.json", works.backend.read(DEV) + b"\n")
    assert [type(e) for e in errors] == [StaleLease]
    assert works.backend.read(DEV).endswith(b"\n")
    with pytest.raises(automation.CommandError, match="replaced since"):
        stack.up()


def test_store_that_fails_in_the_middle_fails_the_update_and_nothing_is_lost(
    works: Works, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise BackendError("the store does not answer")

    stack = works.stack("one")
    with works.interrupted("created", stack.up) as errors:
        monkeypatch.setattr(type(works.backend.logs.open("journals/x", owner="x", guard="x")), "append", fail)
    assert "the store does not answer" in str(errors)
    monkeypatch.undo()
    assert lock_keys(works.backend, DEV) == []
    pending = stack.export_stack().deployment["pending_operations"]
    assert [o["resource"]["urn"].rpartition("::")[2] for o in pending] == ["web"]
    stack.up()
    assert len(works.cloud.made("web")) == 1
    assert names(stack) == ["first", "web"]
