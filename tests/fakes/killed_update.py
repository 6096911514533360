"""Processes that run one update on a real backend and die at a chosen moment. `python -m tests.fakes.killed_update`.

Reads one `Order` per line (JSON), forks a process for it, and answers with its exit code (-9: it was killed). A moment
is before or after something becomes durable: a write of the backend, a file of this machine, an effect in the cloud.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pulumi.automation import CommandResult

import engine.deploy.command.session as session_module
from engine.deploy.backend.blobs import Blobs, Log, Logs
from engine.deploy.backend.open import open_backend
from engine.deploy.backend.stacks import Backend
from engine.deploy.command import EmbeddedPulumi, EngineLoop
from engine.deploy.provider import Provider
from engine.deploy.secrets import PassphraseSecrets
from engine.model.clock import SystemClock
from tests.fakes.program import Declared, StubProgram
from tests.fakes.provider import InMemoryCloud, InMemoryProvider, Thing

_WRITES = frozenset({"put", "create", "replace", "delete"})
_FILE_CHANGES = ("replace", "unlink", "link", "rename", "fsync")


@dataclass(frozen=True)
class Order:
    """One update.

    Attributes:
        verb: up | refresh | destroy.
        executor: who runs it, in the lease table; "" for somebody at a terminal.
        dead: executors whose lease ended.
        kill_at: which moment is its last; 0: it comes to its end.
    """

    root: str
    url: str
    stack: str
    environment: Mapping[str, str]
    salt: str
    verb: str
    program: Sequence[Mapping[str, Any]]
    executor: str = ""
    dead: Sequence[str] = ()
    kill_at: int = 0


@dataclass
class Moments:
    """Counts moments; the process ends at one of them, as if the plug was pulled."""

    last: int
    passed: int = 0

    def pass_(self) -> None:
        self.passed += 1
        if self.passed == self.last:
            os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Leases:
    """A fence that knows whose lease ended."""

    dead: Sequence[str]
    token: int = 1

    def check(self) -> None:
        """The caller's own lease holds."""

    def holder_is_dead(self, lock_owner: str) -> bool:
        return lock_owner in self.dead


class DiskCloud(InMemoryCloud):
    """A cloud in a file, which outlives the process."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        if path.exists():
            stored = json.loads(path.read_bytes())
            self.created = stored["created"]
            self.things = {id: Thing(id, urn, properties) for id, urn, properties in stored["things"]}

    def store(self) -> None:
        """Make it durable."""
        things = [[t.id, t.urn, t.properties] for t in self.things.values()]
        draft = self._path.with_suffix(".draft")
        draft.write_text(json.dumps({"created": self.created, "things": things}))
        draft.rename(self._path)


class DiskProvider(InMemoryProvider):
    """Its effects are durable at once; before and after each is a moment."""

    def __init__(self, cloud: DiskCloud, moments: Moments) -> None:
        super().__init__(cloud)
        self._disk, self._moments = cloud, moments

    async def _enter(self, method: str, urn: str, id: str = "") -> None:
        if method in ("created", "updated", "deleted"):
            self._disk.store()
        if method in ("create", "created", "update", "updated", "delete", "deleted"):
            self._moments.pass_()
        await super()._enter(method, urn, id)


@dataclass
class DiskProviders:
    """A ProviderSource with one package."""

    cloud: DiskCloud
    moments: Moments
    loaded: list[DiskProvider] = field(default_factory=list)

    def provides(self, package: str, type_: str) -> bool:
        return package == "fake"

    async def load(self, package: str, version: str) -> Provider:
        self.loaded.append(DiskProvider(self.cloud, self.moments))
        return self.loaded[-1]


class _Around:
    """Hands everything on; some methods have a moment before and after."""

    def __init__(self, inner: Any, moments: Moments, names: frozenset[str]) -> None:
        self._inner, self._moments, self._names = inner, moments, names

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return around(found, self._moments) if name in self._names else found


def around(real: Callable[..., Any], moments: Moments) -> Callable[..., Any]:
    """The same function with a moment before and after."""

    def call(*args: Any, **kwargs: Any) -> Any:
        moments.pass_()
        answer = real(*args, **kwargs)
        moments.pass_()
        return answer

    return call


class _MortalLogs:
    """Logs whose lines come with moments."""

    def __init__(self, inner: Logs, moments: Moments) -> None:
        self._inner, self._moments = inner, moments

    def open(self, key: str, *, owner: str, guard: str) -> Log:
        opened = self._inner.open(key, owner=owner, guard=guard)
        return _Around(opened, self._moments, frozenset({"append", "close"}))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def mortal_backend(moments: Moments) -> Callable[[str, Path, Mapping[str, str]], Backend]:
    """`open_backend` with a moment before and after every write."""

    def opened(url: str, cwd: Path, env: Mapping[str, str]) -> Backend:
        backend = open_backend(url, cwd, env)
        blobs: Blobs = _Around(backend.blobs, moments, _WRITES)
        logs: Logs = _MortalLogs(backend.logs, moments)
        return Backend(blobs, logs)

    return opened


def perform(order: Order, loop: EngineLoop, moments: Moments) -> CommandResult:
    """Run the update here."""
    return execute(order, loop, moments, order.verb, "--yes", "--skip-preview", "--client", "stub")


def execute(order: Order, loop: EngineLoop, moments: Moments, *args: str) -> CommandResult:
    """Any command line on the order's stack."""
    root = Path(order.root)
    program = StubProgram([Declared(**declared) for declared in order.program])
    command = EmbeddedPulumi(
        providers=DiskProviders(DiskCloud(root / "cloud.json"), moments),
        clock=SystemClock(),
        environment={"HOME": str(root / "home"), "USER": "somebody", **order.environment},
        fence=Leases(order.dead),
        passphrase_salt=order.salt,
        executor_id=order.executor,
        loop=loop,
        programs=lambda address, project: program,
    )
    backend = {"PULUMI_BACKEND_URL": order.url, "PULUMI_CONFIG_PASSPHRASE": "x"}
    return command.execute([*args, "--stack", order.stack], str(root / "work"), backend)


def _mortally(order: Order, loop: EngineLoop) -> int:
    """In the forked process: the update with its moments counted."""
    moments = Moments(order.kill_at)
    mortal = {"open_backend": mortal_backend(moments)}
    vars(session_module).update(mortal)
    if order.executor:
        socket.gethostname = lambda: "elsewhere"  # a worker on another machine: only its lease tells whether it lives
    for name in _FILE_CHANGES if order.url.startswith("file:") else ():
        setattr(os, name, around(getattr(os, name), moments))
    done = perform(order, loop, moments)
    if done.code:
        sys.stderr.write(done.stdout + done.stderr)
    return done.code


def main() -> None:
    """Serve orders from standard input."""
    loop = EngineLoop()
    for line in sys.stdin:
        order = Order(**json.loads(line))
        PassphraseSecrets.open("x", order.salt, loop.keys)  # once, for all that are forked
        child = os.fork()
        if child == 0:
            sys.stdin.close()
            os._exit(_mortally(order, loop))
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


class Executioner:
    """The other end: a process that forks one process per order. A context manager."""

    def __enter__(self) -> Executioner:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.killed_update"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)

    def run(self, order: Order) -> int:
        """The exit code of a process that ran the order; -9: it was killed."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(order)) + "\n")
        self._process.stdin.flush()
        return int(self._process.stdout.readline())


if __name__ == "__main__":
    main()
