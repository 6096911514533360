"""A stack driver over the embedded engine and a cloud in memory."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.automation.driver import StackDriver
from engine.deploy.command import EmbeddedPulumi, EngineLoop
from engine.model.clock import SystemClock
from tests.fakes.provider import FakeProviders, InMemoryCloud


@pytest.fixture
def cloud() -> InMemoryCloud:
    return InMemoryCloud()


@pytest.fixture
def driver(tmp_path: Path, command_loop: EngineLoop, salt: str, cloud: InMemoryCloud) -> StackDriver:
    for folder in ("backend", "home", "work"):
        (tmp_path / folder).mkdir()
    return StackDriver(
        project="golden",
        backend_url=f"file://{tmp_path}/backend",
        passphrase="x",
        passphrase_salt=salt,
        work_dir=tmp_path / "work",
        command_for=lambda fence: EmbeddedPulumi(
            providers=FakeProviders(cloud),
            clock=SystemClock(),
            fence=fence,
            environment={"HOME": str(tmp_path / "home")},
            passphrase_salt=salt,
            executor_id="worker-1",
            loop=command_loop,
        ),
        environment={"CLOUD_TOKEN": "t"},
    )
