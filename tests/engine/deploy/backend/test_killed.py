"""kill -9 of a process that updates a stack, at its moments one after the other, on every kind of backend.

A moment is before or after something becomes durable, in the backend or in the cloud. Whatever the moment: what is
stored loads, nobody gets in before the dead one is known to be dead, the next update settles, cloud and state agree.
Odd moments kill a worker of another machine, whose lease tells; even ones a process of this machine.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.deploy.backend.locks import lock_keys
from engine.deploy.backend.stack_journal import journal_key
from engine.deploy.backend.stacks import Backend, StackReference
from engine.deploy.command import EngineLoop
from tests.fakes.killed_update import DiskCloud, Executioner, Moments, Order, execute, perform

ROUNDS = int(os.environ.get("KILL_ROUNDS", "1"))
# In `make fuzz` every moment, of the slowest kind every third; in `make test` a few.
STRIDES = {"s3": 3} if ROUNDS > 1 else {"s3": 17, "postgres": 17, "file": 17}
KILLED = -9

BEFORE: list[dict[str, Any]] = [
    {"name": "a", "properties": {"slot": 1}},
    {"name": "b", "uses": {"kind": "a"}},
    {"name": "c", "properties": {"size": 1}},
    {"name": "d"},
]
AFTER: list[dict[str, Any]] = [
    {"name": "a", "properties": {"slot": 2}},
    {"name": "b", "uses": {"kind": "a"}},
    {"name": "c", "properties": {"size": 2}},
    {"name": "e"},
]
UPDATES = {"create": ("up", [], BEFORE), "mixed": ("up", BEFORE, AFTER), "destroy": ("destroy", BEFORE, [])}

pytestmark = pytest.mark.timeout(900)  # the first test that needs the S3 server may have to build it


@pytest.fixture(scope="module")
def executioner() -> Iterator[Executioner]:
    with Executioner() as running:
        yield running


@pytest.mark.parametrize("update", UPDATES)
def test_whatever_the_moment_cloud_and_state_agree_in_the_end(
    update: str, kind: str, place: tuple[str, Mapping[str, str]], opener: Callable[[], Backend], tmp_path: Path,
    executioner: Executioner, command_loop: EngineLoop, salt: str,
) -> None:  # fmt: skip
    verb, before, after = UPDATES[update]
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "Pulumi.yaml").write_text("name: golden\nruntime: python\n")
    url, environment = place
    stride = STRIDES.get(kind, 1)
    moment, killed = 1 + len(update) % stride, 0
    while True:
        order = Order(str(tmp_path), url, f"s{moment}", environment, salt, verb, after)
        (tmp_path / "cloud.json").unlink(missing_ok=True)
        prepare(order, before, command_loop)
        doomed = replace(order, executor="doomed" if moment % 2 else "", kill_at=moment)
        code = executioner.run(doomed)
        assert code in (0, KILLED), f"moment {moment} of {update} on {kind}: it failed by itself"
        check_settles(order, opener(), doomed, command_loop, f"moment {moment} of {update} on {kind}")
        if code == 0:
            break
        killed += 1
        moment += stride
    assert killed >= 2, "there are moments to die at"


def prepare(order: Order, program: list[dict[str, Any]], loop: EngineLoop) -> None:
    """A new stack with a program in it."""
    done = execute(order, loop, Moments(0), "stack", "init")
    assert done.code == 0, done.stderr
    if program:
        done = perform(replace(order, verb="up", program=program), loop, Moments(0))
        assert done.code == 0, done.stdout + done.stderr


def check_settles(order: Order, backend: Backend, doomed: Order, loop: EngineLoop, when: str) -> None:
    """The next one gets in once the dead one is known to be dead, and puts everything right."""
    stack = StackReference("golden", order.stack)
    if doomed.executor and lock_keys(backend, stack):
        refused = perform(replace(order, executor="next"), loop, Moments(0))
        assert refused.code == 1 and "currently locked by 1 lock(s)" in refused.stderr, when
    after = replace(order, executor="next", dead=["doomed"])
    exported = execute(after, loop, Moments(0), "stack", "export")
    assert exported.code == 0, f"{when}: what is stored does not load: {exported.stderr}"
    done = perform(after, loop, Moments(0))
    assert done.code == 0, f"{when}: {done.stdout}{done.stderr}"
    assert agreed(order, loop) == sorted(d["name"] for d in order.program), when
    assert perform(after, loop, Moments(0)).code == 0
    if order.program:
        flags = ("--yes", "--skip-preview", "--client", "stub", "--expect-no-changes")
        again = execute(after, loop, Moments(0), "up", *flags)
        assert again.code == 0, f"{when}: {again.stdout}"
    assert not lock_keys(backend, stack) and not backend.logs.exists(journal_key(stack)), when


def agreed(order: Order, loop: EngineLoop) -> list[str]:
    """The names of what exists; cloud and checkpoint say the same, and nothing is pending."""
    deployment = json.loads(execute(order, loop, Moments(0), "stack", "export").stdout)["deployment"]
    things = [r for r in deployment.get("resources", []) if r["type"] == "fake:index:Thing"]
    cloud = DiskCloud(Path(order.root) / "cloud.json").things
    assert {r["id"]: r["urn"] for r in things} == {t.id: t.urn for t in cloud.values()}, "cloud and state disagree"
    assert "pending_operations" not in deployment
    return sorted(r["urn"].rpartition("::")[2] for r in things)
