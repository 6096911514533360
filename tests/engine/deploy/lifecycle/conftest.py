"""Projects in folders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.deploy.command import EngineLoop
from engine.deploy.secrets import new_salt
from tests.fakes.folder import Folder


@pytest.fixture(scope="module")
def folder_loop() -> Iterator[EngineLoop]:
    loop = EngineLoop()
    yield loop
    loop.close()


@pytest.fixture
def folder(tmp_path: Path, folder_loop: EngineLoop) -> Folder:
    return Folder(tmp_path, folder_loop, new_salt("x", folder_loop.keys))


@pytest.fixture
def started(folder: Folder) -> Callable[..., Folder]:
    def start(main: str, **options: str) -> Folder:
        folder.write(main, **options)
        folder.run("stack", "init", "dev")
        return folder

    return start
