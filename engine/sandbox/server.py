"""Serving the sandbox on a loopback address. Prints nothing; the command lines around it do."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from engine.model.clock import Clock, SystemClock
from engine.model.ids import random_hex
from engine.sandbox.admin import SandboxAdmin
from engine.sandbox.app import SandboxApp
from engine.sandbox.cloud import Cloud
from engine.sandbox.faults import Faults
from engine.sandbox.limits import Limiter, RateLimits
from engine.sandbox.machines import Machines, MachineSettings
from engine.sandbox.records import Droplet, Timings
from engine.sandbox.spaces.access import KeyPair
from engine.sandbox.spaces.service import Spaces
from engine.sandbox.state import StateFile

LOOPBACK = IPv4Network("127.0.0.0/8")


@dataclass(frozen=True)
class SandboxSettings:
    """Everything that can be chosen.

    Attributes:
        port: 0 = any free one.
        data_dir: where machines keep their files, and Spaces its objects.
        boot_seconds: from an accepted create to `active`.
        machines: whether Droplets start processes.
        rate_limits: whether DigitalOcean's request limits hold.
        limits: how many.
        accounts: token → account name; empty = every token is an account of its own.
        state_file: SQLite file that lets a restarted sandbox know its Droplets.
        worker_command: the model server of a machine; empty = llama.cpp (see machines.py for the placeholders).
        restart_seconds: after which a machine's crashed process is started again.
        grace_seconds: between SIGTERM and SIGKILL.
        address_offset: where Droplet addresses begin in 127.0.0.0/8; None = anywhere, so that sandboxes do not meet.
        environment: of the machines' processes.
        spaces_dir: where Spaces keeps its objects; None = in `data_dir`. Keep it as long as `state_file`.
        spaces_key: works without having been made; None = only keys made with `/v2/spaces/keys` do.
    """

    data_dir: Path
    host: str = "127.0.0.1"
    port: int = 0
    boot_seconds: float = 20.0
    action_seconds: float = 0.0
    delete_seconds: float = 0.0
    machines: bool = True
    rate_limits: bool = True
    limits: RateLimits = field(default_factory=RateLimits)
    droplet_limit: int = 1000
    accounts: Mapping[str, str] = field(default_factory=dict)
    state_file: Path | None = None
    worker_command: Sequence[str] = ()
    restart_seconds: float = 1.0
    grace_seconds: float = 2.0
    address_offset: int | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    spaces_dir: Path | None = None
    spaces_key: KeyPair | None = None


class _DroppableProtocol(HttpToolsProtocol):
    """HTTP that hands its transport to the application, for the faults that break a connection."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {"sandbox": {"transport": self.transport}}


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: whoever runs the sandbox has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Sandbox:
    """A running sandbox.

    Attributes:
        url: where it answers.
    """

    def __init__(self, settings: SandboxSettings, clock: Clock) -> None:
        check_host(settings.host)
        offset = settings.address_offset
        self.cloud = Cloud(
            clock, Timings(settings.boot_seconds, settings.action_seconds, settings.delete_seconds),
            droplet_limit=settings.droplet_limit,
            address_offset=int(random_hex(6), 16) if offset is None else offset,
            keep_user_data=settings.machines,
        )  # fmt: skip
        self.faults = Faults()
        self.limiter = Limiter(settings.limits if settings.rate_limits else RateLimits(0, 0, 0))
        self.settings = settings
        self.url = ""
        self.port = 0
        self._wake = asyncio.Event()
        self.machines = self._make_machines() if settings.machines else None
        self.app = SandboxApp(
            self.cloud, self.faults, self.limiter, settings.accounts,
            SandboxAdmin(self.cloud, self.faults, self.limiter, self.machines),
        )  # fmt: skip

    def _make_machines(self) -> Machines:
        s = self.settings
        return Machines(
            self.cloud, MachineSettings(s.data_dir, s.worker_command, s.restart_seconds, s.grace_seconds), s.environment
        )  # fmt: skip

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """State read, machines running, until left."""
        with contextlib.ExitStack() as stack:
            spaces_dir = self.settings.spaces_dir or self.settings.data_dir / "spaces"
            spaces = Spaces(self.cloud, self.faults, spaces_dir, self.settings.spaces_key)
            stack.callback(spaces.close)
            if self.settings.state_file is not None:
                state = stack.enter_context(contextlib.closing(StateFile(self.settings.state_file)))
                state.restore(self.cloud)
                self.cloud.recorder = state
                self.app.commit = spaces.commit = state.commit
            spaces.open()
            self.app.spaces = spaces
            if self.machines is None:
                yield
                return
            self.cloud.on_change = self._changed
            pacer = asyncio.create_task(self._pace())
            for droplet in list(self.cloud.live_droplets()):
                self.machines.touch(droplet.id)
            try:
                yield
            finally:
                self.cloud.on_change = None
                pacer.cancel()
                await asyncio.gather(pacer, return_exceptions=True)
                await self.machines.close()

    def _changed(self, droplet: Droplet) -> None:
        self._wake.set()
        assert self.machines is not None
        self.machines.touch(droplet.id)

    async def _pace(self) -> None:
        """Complete what is due when it is due: a machine must boot also when nobody asks about it."""
        while True:
            self.cloud.advance()
            self.app.commit()
            self._wake.clear()
            due = self.cloud.next_due()
            wait = None if due is None else max(0.0, due - self.cloud.now())
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), wait)


def check_host(host: str) -> None:
    """Refuse to be reachable from outside: the sandbox runs what its callers send.

    Raises:
        ValueError: not a loopback address.
    """
    try:
        inside = IPv4Address(host) in LOOPBACK
    except ValueError:
        inside = False
    if not inside:
        raise ValueError(f"the sandbox binds addresses of 127.0.0.0/8 only, not {host!r}")


async def serve(
    settings: SandboxSettings, *, ready: Callable[[Sandbox], None] | None = None,
    stop: asyncio.Event | None = None, clock: Clock | None = None,
) -> None:  # fmt: skip
    """Serve until `stop` is set or this is cancelled.

    Args:
        ready: called once it accepts connections.

    Raises:
        ValueError: a host that is not loopback. OSError: the port is taken.
    """
    sandbox = Sandbox(settings, clock or SystemClock())
    listener = socket.create_server((settings.host, settings.port), backlog=2048)
    # asyncio sets this only on sockets that name their protocol; without it each answer waits 40 ms for an ACK.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with contextlib.closing(listener):
        sandbox.port = listener.getsockname()[1]
        sandbox.url = f"http://{settings.host}:{sandbox.port}"
        config = uvicorn.Config(
            sandbox.app, http=_DroppableProtocol, ws="none", lifespan="off", log_config=None, access_log=False,
            server_header=False, date_header=False, timeout_keep_alive=75, timeout_graceful_shutdown=1,
        )  # fmt: skip
        server = _Server(config)
        async with sandbox.open():
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            if ready is not None:
                ready(sandbox)
            await _until(serving, server, stop)


async def _until(serving: asyncio.Task[None], server: uvicorn.Server, stop: asyncio.Event | None) -> None:
    stopping = asyncio.create_task((stop or asyncio.Event()).wait())
    try:
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        server.should_exit = True
        await serving


@contextlib.asynccontextmanager
async def running(settings: SandboxSettings, clock: Clock | None = None) -> AsyncIterator[Sandbox]:
    """A sandbox beside whatever else this event loop does; for tests and the demo."""
    stop = asyncio.Event()
    started: asyncio.Future[Sandbox] = asyncio.get_running_loop().create_future()
    task = asyncio.create_task(serve(settings, ready=started.set_result, stop=stop, clock=clock))
    waiting: set[asyncio.Future[Any]] = {task, started}
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        task.result()
    try:
        yield started.result()
    finally:
        stop.set()
        await task


def run(settings: SandboxSettings, *, ready: Callable[[Sandbox], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT."""

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        await serve(settings, ready=ready, stop=stop)

    uvloop.run(main())
