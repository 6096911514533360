"""A worker process is killed (SIGKILL) inside a create; another process on the same host takes the stack over."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine.automation.driver import StackDriver
from engine.model.fence import NoFence
from engine.model.stack import StackRequest
from tests.fakes.provider import InMemoryCloud, InMemoryProvider
from tests.fakes.scenario import Thing

REPOSITORY = Path(__file__).parents[3]
DOOMED = """
import os, signal, sys
from pathlib import Path
from engine.automation.driver import StackDriver
from engine.deploy.command import EmbeddedPulumi, EngineLoop
from engine.model.clock import SystemClock
from engine.model.fence import NoFence
from engine.model.stack import StackRequest
from tests.fakes.provider import FakeProviders, InMemoryCloud
from tests.fakes.scenario import Thing

root, salt, method = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
cloud, loop = InMemoryCloud(), EngineLoop()
cloud.script[method, "web"] = [lambda: os.kill(os.getpid(), signal.SIGKILL)]
driver = StackDriver(
    project="golden", backend_url=f"file://{root}/backend", passphrase="x", passphrase_salt=salt,
    work_dir=root / "work", environment={},
    command_for=lambda fence: EmbeddedPulumi(
        providers=FakeProviders(cloud), clock=SystemClock(), fence=fence, environment={"HOME": f"{root}/home"},
        passphrase_salt=salt, executor_id="doomed", loop=loop,
    ),
)
driver.up(StackRequest("dep-a", lambda: Thing("web", {"size": 1})), fence=NoFence())
"""


def program() -> None:
    Thing("web", {"size": 1})


@pytest.mark.parametrize(("method", "made"), [("create", False), ("created", True)])
def test_killed_worker_leaves_nothing_lost_and_nothing_twice(
    driver: StackDriver, cloud: InMemoryCloud, tmp_path: Path, method: str, made: bool
) -> None:
    driver.preview(StackRequest("dep-b", program), fence=NoFence())  # makes the salt known below
    salt = next(
        line.split(": ", 1)[1]
        for line in (driver.work_folder("dep-b") / "Pulumi.dep-b.yaml").read_text().splitlines()
        if line.startswith("encryptionsalt")
    )
    arguments = [sys.executable, "-c", DOOMED, str(tmp_path), salt, method]
    died = subprocess.run(arguments, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert died.returncode == -signal.SIGKILL, died.stderr
    (pending,) = driver.export("dep-a")["pending_operations"]
    assert (pending["type"], pending["resource"]["inputs"]["size"]) == ("creating", 1)
    if made:  # the cloud outlives its clients
        InMemoryProvider(cloud).make(pending["resource"]["urn"], pending["resource"]["inputs"])
    driver.up(StackRequest("dep-a", program), fence=NoFence())
    assert cloud.created == 1
    assert len(cloud.made("web")) == 1
    assert "pending_operations" not in driver.export("dep-a")
    assert driver.up(StackRequest("dep-a", program), fence=NoFence()).resource_changes == {"same": 2}
