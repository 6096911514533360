"""A work folder with the embedded command in it, and the SDK's own workspace on top."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from pulumi import automation
from pulumi.automation._server import LanguageServer
from pulumi.runtime.proto import language_pb2_grpc

from engine.deploy.command import EmbeddedPulumi, EngineLoop
from engine.deploy.update import ProviderSource
from engine.model.clock import SystemClock
from engine.model.fence import Fence
from tests.fakes.provider import FakeProviders, InMemoryCloud


@dataclass
class Place:
    """Where commands run: a backend, a home and work folders below one temporary folder."""

    root: Path
    loop: EngineLoop
    salt: str
    cloud: InMemoryCloud = field(default_factory=InMemoryCloud)
    passphrase: str = "x"

    def __post_init__(self) -> None:
        for folder in ("backend", "home", "work"):
            (self.root / folder).mkdir(exist_ok=True)

    @property
    def state(self) -> Path:
        return self.root / "backend" / ".pulumi"

    def command(
        self, *, providers: ProviderSource | None = None, fence: Fence | None = None, executor: str = ""
    ) -> EmbeddedPulumi:
        return EmbeddedPulumi(
            providers=providers or FakeProviders(self.cloud),
            clock=SystemClock(),
            fence=fence,
            environment={"HOME": str(self.root / "home"), "USER": "somebody"},
            passphrase_salt=self.salt,
            executor_id=executor,
            loop=self.loop,
        )

    def workspace(
        self,
        program: Callable[[], Any] | None = None,
        *,
        command: automation.PulumiCommand | None = None,
        project: str = "golden",
        env: Mapping[str, str] | None = None,
    ) -> automation.LocalWorkspace:
        return automation.LocalWorkspace(
            work_dir=str(self.root / "work"),
            program=program,
            pulumi_command=command or self.command(),
            project_settings=automation.ProjectSettings(name=project, runtime="python"),
            env_vars={
                "PULUMI_BACKEND_URL": f"file://{self.root}/backend",
                "PULUMI_CONFIG_PASSPHRASE": self.passphrase,
                **(env or {}),
            },
        )

    def stack(self, program: Callable[[], Any], name: str = "dev", **options: Any) -> automation.Stack:
        return automation.Stack.create_or_select(name, self.workspace(program, **options))

    @contextmanager
    def serving(self, program: Callable[[], Any]) -> Iterator[str]:
        """The SDK's language host for a program; yields its address."""
        server = grpc.server(futures.ThreadPoolExecutor(4))
        language_pb2_grpc.add_LanguageRuntimeServicer_to_server(LanguageServer(program), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(0).wait()

    def execute(self, program: Callable[[], Any], *args: str) -> automation.CommandResult:
        """One command line as somebody types it, for stack dev, with a program; failures are results."""
        workspace = self.workspace(lambda: None)
        with self.serving(program) as address:
            flags = ["--stack", "dev", "--client", address]
            return self.command().execute([*args, *flags], workspace.work_dir, dict(workspace.env_vars))

    def run(self, *args: str, **options: Any) -> automation.CommandResult:
        """One command line in the work folder."""
        workspace = self.workspace(**options)
        return workspace.pulumi_command.run(list(args), workspace.work_dir, dict(workspace.env_vars))


@pytest.fixture
def place(tmp_path: Path, command_loop: EngineLoop, salt: str) -> Iterator[Place]:
    yield Place(tmp_path, command_loop, salt)
    with warnings.catch_warnings():
        # The SDK's language server does not close the event loop of a program that was cancelled.
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
