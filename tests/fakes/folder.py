"""A project in a folder, its backend and home beside it, and the embedded command run in it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pulumi import automation

from engine.deploy.command import EmbeddedPulumi, EngineLoop
from engine.model.clock import SystemClock
from tests.fakes.provider import FakeProviders, InMemoryCloud

THING = """
import pulumi

class Thing(pulumi.CustomResource):
    address: pulumi.Output[str]
    def __init__(self, name, props=None, opts=None):
        merged = pulumi.ResourceOptions.merge(pulumi.ResourceOptions(version="1.2.3"), opts)
        super().__init__("fake:index:Thing", name, {"address": None, **(props or {})}, merged)
"""


class Folder:
    """One project; stack `dev`."""

    def __init__(self, root: Path, loop: EngineLoop, salt: str) -> None:
        self.cloud = InMemoryCloud()
        self.root, self._loop, self._salt = root, loop, salt
        for name in ("backend", "home", "work"):
            (root / name).mkdir()
        self.work = root / "work"
        self.deadline_seconds = 60.0
        self.variables: dict[str, str] = {}

    def write(self, main: str, *, project: str = "name: local\nruntime: python\n") -> None:
        """The program; `from thing import Thing` gives it a resource of the fake provider."""
        (self.work / "Pulumi.yaml").write_text(project)
        (self.work / "__main__.py").write_text(main)
        (self.work / "thing.py").write_text(THING)

    @property
    def environment(self) -> dict[str, str]:
        return {
            "HOME": str(self.root / "home"),
            "USER": "somebody",
            "PATH": os.environ["PATH"],
            "PULUMI_BACKEND_URL": f"file://{self.root}/backend",
            "PULUMI_CONFIG_PASSPHRASE": "x",
            # a module written again within a second and as long as before would be taken from its old bytecode
            "PYTHONDONTWRITEBYTECODE": "1",
            **self.variables,
        }

    def command(self, providers: Any = None) -> EmbeddedPulumi:
        return EmbeddedPulumi(
            providers=providers or FakeProviders(self.cloud),
            clock=SystemClock(),
            environment=self.environment,
            passphrase_salt=self._salt,
            loop=self._loop,
            program_deadline_seconds=self.deadline_seconds,
        )

    def run(self, *args: str) -> str:
        return self.command().run(list(args), str(self.work), {}).stdout

    def up(self, *flags: str) -> str:
        return self.run("up", "--yes", "--skip-preview", "--stack", "dev", *flags)

    def destroy(self) -> str:
        return self.run("destroy", "--yes", "--skip-preview", "--stack", "dev")

    def outputs(self) -> str:
        return self.run("stack", "output", "--json", "--show-secrets", "--stack", "dev")

    def state(self) -> str:
        return self.run("stack", "export", "--stack", "dev")

    def up_fails(self, *flags: str) -> str:
        with pytest.raises(automation.CommandError) as caught:
            self.up(*flags)
        return str(caught.value)

    def close(self) -> None:
        """End the engine's loop and whatever it started."""
        self._loop.close()
