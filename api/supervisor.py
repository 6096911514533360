"""`stackyard serve`: starts gateway, API and worker as child processes, restarts what dies, stops all together.

Carries no request itself: it holds the public socket, so that connections wait while the gateway restarts.
"""

from __future__ import annotations

import asyncio
import fcntl
import http.client
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import structlog

from api.settings import Settings
from engine.identity import installation_secret
from engine.model import ids
from engine.model.clock import Clock
from engine.model.errors import Conflict, Unavailable

FIRST_BACKOFF_SECONDS = 0.1
LONGEST_BACKOFF_SECONDS = 5.0
HEALTHY_SECONDS = 5.0
"""A child that ran this long got through its start: when it dies then, it is begun again without delay."""

STOP_SECONDS = 12.0
"""How long children may take to stop; more than any of them grants its own requests."""

LISTEN_BACKLOG = 2048


@dataclass(frozen=True)
class ChildSpec:
    """One kind of child process.

    Attributes:
        command: makes the command line for one start, given the names of this run (`worker-8x3k…`) and of the one
            before it, also under an earlier supervisor ("" at the very first).
    """

    name: str
    command: Callable[[str, str], Sequence[str]]


class Supervisor:
    """Keeps one process of each kind running until `stop` is set.

    While a child runs its pid is in `<run_dir>/<name>.pid`; between two runs the file is empty. The name of its newest
    run is in `<name>.run`, so that the first child after a power cut too is told whom it replaces.
    """

    def __init__(
        self, children: Sequence[ChildSpec], *, run_dir: Path, environment: Mapping[str, str], fds: Sequence[int],
        clock: Clock,
    ) -> None:  # fmt: skip
        self._children = children
        self._run_dir = run_dir
        self._environment = dict(environment)
        self._fds = tuple(fds)
        self._clock = clock
        self._log = structlog.get_logger("supervisor")

    async def run(self, stop: asyncio.Event) -> None:
        """Start everything; return when all have stopped after `stop`."""
        async with asyncio.TaskGroup() as group:
            for child in self._children:
                group.create_task(self._keep(child, stop))

    async def _keep(self, child: ChildSpec, stop: asyncio.Event) -> None:
        backoff = FIRST_BACKOFF_SECONDS
        run_file = self._run_dir / f"{child.name}.run"
        run = run_file.read_text().strip() if run_file.exists() else ""
        while not stop.is_set():
            started = self._clock.monotonic()
            previous, run = run, f"{child.name}-{ids.random_text(10)}"
            run_file.write_text(f"{run}\n")
            code = await self._run_once(child, child.command(run, previous), stop)
            if stop.is_set():
                return
            if self._clock.monotonic() - started > HEALTHY_SECONDS:
                backoff = FIRST_BACKOFF_SECONDS
            self._log.warning("a process ended and is started again", process=child.name, code=code, after=backoff)
            with suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), backoff)
            backoff = min(backoff * 2, LONGEST_BACKOFF_SECONDS)

    async def _run_once(self, child: ChildSpec, command: Sequence[str], stop: asyncio.Event) -> int:
        """Start a child, wait until it ends or `stop` is set (then end it); returns its exit code."""
        pid_file = self._run_dir / f"{child.name}.pid"
        process = await asyncio.create_subprocess_exec(
            *command, env=self._environment, pass_fds=self._fds, stdin=asyncio.subprocess.DEVNULL,
            process_group=0,  # Ctrl-C is ours alone: we stop them in order
        )  # fmt: skip
        pid_file.write_text(f"{process.pid}\n")
        exited = asyncio.ensure_future(process.wait())
        stopped = asyncio.ensure_future(stop.wait())
        await asyncio.wait((exited, stopped), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not exited.done():
            await self._end(child, process)
        pid_file.write_text("")
        return await exited

    async def _end(self, child: ChildSpec, process: asyncio.subprocess.Process) -> None:
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            self._log.warning("a process did not stop in time and is killed", process=child.name)
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def serve(
    settings: Settings, clock: Clock, *, with_worker: bool, port_file: Path | None, announce: Callable[[str], None]
) -> None:
    """Run an installation until SIGTERM or Ctrl-C.

    Args:
        settings: of this process; the children read the same from their environment.
        port_file: written with the public port once the socket listens.
        announce: told the public URL once everything is ready.

    Raises:
        Conflict: another `stackyard serve` uses this data folder.
        Unavailable: the address is taken, or the database cannot be used.
    """
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with _only_one(settings.data_dir), _listening(settings.host, settings.port) as public:
        port = public.getsockname()[1]
        settings = settings.model_copy(update={"port": port})
        installation_secret.load_or_create(settings.data_dir, settings.secret_key)
        if port_file:
            _write_whole(port_file, str(port))
        asyncio.run(_serve(settings, clock, public, with_worker=with_worker, announce=announce))


async def _serve(
    settings: Settings, clock: Clock, public: socket.socket, *, with_worker: bool, announce: Callable[[str], None]
) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    environment = dict(os.environ) | _as_environment(settings)
    with _gate() as gate:
        supervisor = Supervisor(
            _children(public.fileno(), gate.waits, with_worker=with_worker), run_dir=settings.data_dir,
            environment=environment, fds=[public.fileno(), gate.waits], clock=clock,
        )  # fmt: skip
        running = asyncio.ensure_future(supervisor.run(stop))
        announcing = asyncio.ensure_future(_announce_when_ready(settings, clock, announce))
        try:
            migrated = await _migrate(environment)
            gate.open()
            if not migrated:
                stop.set()
            await running
        finally:
            announcing.cancel()
    if not migrated:
        raise Unavailable("the database cannot be used; the reason is above, `stackyard doctor` may say more")


def _children(public_fd: int, gate_fd: int, *, with_worker: bool) -> list[ChildSpec]:
    common = ["--parent-pid", str(os.getpid()), "--gate", str(gate_fd)]
    children = [
        ChildSpec("gateway", lambda run, previous: [*_module("api.gateway"), *common, "--fd", str(public_fd)]),
        ChildSpec("api", lambda run, previous: [*_module("api.server"), *common]),
    ]
    if with_worker:
        worker = _module("api.worker_process")
        children.append(
            ChildSpec("worker", lambda run, previous: [*worker, *common, "--executor-id", run, "--replaces", previous])
        )
    return children


async def _migrate(environment: Mapping[str, str]) -> bool:
    """Bring the database up to date in a process that takes its memory with it; False when that failed."""
    process = await asyncio.create_subprocess_exec(
        *_module("api.migrate_process"), env=dict(environment), stdin=asyncio.subprocess.DEVNULL
    )
    return await process.wait() == 0


class _Gate:
    """Holds the children back, once they have imported everything, until the database is ready.

    A pipe that nobody writes to: reading it ends when the writing end is closed, also by this process's death.
    """

    def __init__(self) -> None:
        self.waits, self._closes = os.pipe()
        self._is_open = False

    def open(self) -> None:
        if not self._is_open:
            os.close(self._closes)
            self._is_open = True


@contextmanager
def _gate() -> Iterator[_Gate]:
    gate = _Gate()
    try:
        yield gate
    finally:
        gate.open()
        os.close(gate.waits)


def _as_environment(settings: Settings) -> dict[str, str]:
    """The settings that command-line options may have changed, as the children will read them."""
    return {
        "STACKYARD_DATA_DIR": str(settings.data_dir.resolve()),
        "STACKYARD_HOST": settings.host,
        "STACKYARD_PORT": str(settings.port),
        "STACKYARD_LOG_LEVEL": settings.log_level,
    }


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", name]


async def _announce_when_ready(settings: Settings, clock: Clock, announce: Callable[[str], None]) -> None:
    while not await asyncio.to_thread(_is_ready, settings.host, settings.port):
        await clock.sleep(0.1)
    announce(settings.resolved_public_url)


def _is_ready(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=1)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=LISTEN_BACKLOG)
    except OSError as err:
        raise Unavailable(
            f"cannot listen on {host}:{port} ({err.strerror}): stop what uses it, or choose another with --port"
        ) from err
    with listening:
        yield listening


@contextmanager
def _only_one(data_dir: Path) -> Iterator[None]:
    """Hold the data folder's lock; the kernel lets go of it when this process ends, however it ends."""
    with (data_dir / "serve.lock").open("a") as lock:
        _lock(lock, data_dir)
        yield


def _lock(lock: IO[str], data_dir: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as err:
        raise Conflict(
            f"another `stackyard serve` is using {data_dir}: stop it, or give this one its own --data-dir"
        ) from err


def _write_whole(path: Path, text: str) -> None:
    """Write a file that readers see whole or not at all."""
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(text)
    draft.replace(path)
