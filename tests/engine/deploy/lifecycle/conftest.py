"""Projects in folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.deploy.command import EngineLoop
from tests.fakes.folder import Folder


@pytest.fixture
def folder(tmp_path: Path, command_loop: EngineLoop, salt: str) -> Folder:
    return Folder(tmp_path, command_loop, salt)


@pytest.fixture
def started(folder: Folder) -> Callable[..., Folder]:
    def start(main: str, **options: str) -> Folder:
        folder.write(main, **options)
        folder.run("stack", "init", "dev")
        return folder

    return start
