"""The same stack worked on by the embedded engine and by the official one in turn; needs `pulumi` on PATH."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pulumi
import pytest

from engine.automation.choice import choose_command
from engine.automation.driver import StackDriver
from engine.deploy.command import EmbeddedPulumi, EngineLoop
from engine.model.clock import SystemClock
from engine.model.fence import NoFence
from engine.model.stack import ConfigText, StackRequest
from tests.fakes.provider import FakeProviders, InMemoryCloud
from tests.fakes.scenario import Group

pytestmark = pytest.mark.skipif(shutil.which("pulumi") is None, reason="the official `pulumi` is not on PATH")
MODES = ("embedded", "cli")
FENCE = NoFence()


def program() -> None:
    Group("group")
    pulumi.export("plain", [1, {"a": "b"}])
    pulumi.export("token", pulumi.Config("golden").require_secret("token"))


REQUEST = StackRequest("dep-a", program, {"golden:token": ConfigText("hush", secret=True)})


def make_driver(mode: str, root: Path, loop: EngineLoop, salt: str) -> StackDriver:
    environment = {**os.environ, "HOME": str(root / "home")}
    return StackDriver(
        project="golden",
        backend_url=f"file://{root}/backend",
        passphrase="x",
        passphrase_salt=salt,
        work_dir=root / "work",
        environment={"HOME": str(root / "home")},
        command_for=choose_command(
            mode,
            environment=environment,
            embedded=lambda fence: EmbeddedPulumi(
                providers=FakeProviders(InMemoryCloud()),
                clock=SystemClock(),
                environment=environment,
                fence=fence,
                passphrase_salt=salt,
                loop=loop,
            ),
        ),
    )


@pytest.mark.parametrize("first", MODES)
def test_either_engine_continues_the_others_stack(
    tmp_path: Path, command_loop: EngineLoop, salt: str, first: str
) -> None:
    for folder in ("backend", "home", "work"):
        (tmp_path / folder).mkdir()
    second = next(mode for mode in MODES if mode != first)
    one, other = (make_driver(mode, tmp_path, command_loop, salt) for mode in (first, second))
    outputs = {"plain": [1, {"a": "b"}], "token": "hush"}
    made = one.up(REQUEST, fence=FENCE)
    assert (made.resource_changes, made.outputs) == ({"create": 2}, outputs)
    assert other.outputs("dep-a") == outputs
    assert other.up(REQUEST, fence=FENCE).resource_changes == {"same": 2}
    assert one.preview(REQUEST, fence=FENCE).resource_changes == {"same": 2}
    assert one.export("dep-a")["resources"] == other.export("dep-a")["resources"]
    assert other.destroy(REQUEST, fence=FENCE, remove=True).resource_changes == {"delete": 2}
    assert one.stacks() == []
