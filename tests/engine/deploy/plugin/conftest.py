"""Projects in folders, and the lab plugin installed on the machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from engine.deploy.command import EngineLoop
from tests.fakes import lab_plugin
from tests.fakes.folder import Folder


@pytest.fixture
def folder(tmp_path: Path, command_loop: EngineLoop, salt: str) -> Folder:
    return Folder(tmp_path, command_loop, salt)


@pytest.fixture
def lab(folder: Folder) -> Callable[..., Folder]:
    """A project whose program uses the lab plugin, installed on PATH; configuration by keyword."""

    def start(program: str, **config: str) -> Folder:
        program_file = lab_plugin.install(folder.root / "bin")
        folder.variables["PATH"] = f"{program_file.parent}:{folder.environment['PATH']}"
        (folder.root / "lab").mkdir()
        folder.write(program)
        folder.run("stack", "init", "dev")
        settings = {"lab:folder": str(folder.root / "lab"), **config}
        for key, value in settings.items():
            folder.run("config", "set", key, value, "--stack", "dev")
        return folder

    return start
