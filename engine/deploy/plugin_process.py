"""Plugin processes: started once per (program, environment, configuration), shared, health-checked, ended when idle.

Knows how a plugin starts and dies, not what it provides. Source: pulumi `sdk/go/common/resource/plugin/plugin.go`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sys
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.proto import analyzer_pb2_grpc, engine_pb2, engine_pb2_grpc, plugin_pb2, provider_pb2_grpc

from engine.deploy.packages import Parameterization
from engine.deploy.provider import ProviderError
from engine.deploy.wire import CHANNEL_OPTIONS

_TIED = Path(__file__).parent / "launchers" / "tied.py"
_START_SECONDS = 60.0  # a large plugin loads its schema first; the official engine waits as long for the port
_HEALTH_SECONDS = 5.0
_IDLE_SECONDS = 300.0  # updates of one stack come in bursts; a plugin of a large cloud holds hundreds of MiB
_LAST_WORDS = 20
_STDOUT_STREAM, _STDERR_STREAM = 1, 2
_SEVERITIES = {engine_pb2.INFO: "info", engine_pb2.WARNING: "warning", engine_pb2.ERROR: "error"}


@dataclass(frozen=True)
class PluginCommand:
    """How to start a plugin.

    Attributes:
        argv: program and arguments; the engine's address follows, then `more`.
        service: the gRPC service it serves, which is asked whether it is well.
        environment: of the process: a cloud's credentials are in it, so it is part of the identity.
        root: the folder of the plugin's program.
        parameter: what package it is to be, for a plugin that can be several.
        shows_output: what it prints is shown to the user; of others it is only told when they die.
        port: somebody else runs it, for example a debugger, and it listens here; 0: we start it.
    """

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    directory: str = "/"
    more: tuple[str, ...] = ()
    service: Literal["provider", "analyzer"] = "provider"
    root: str = ""
    parameter: Parameterization | None = None
    shows_output: bool = False
    port: int = 0

    def key(self) -> str:
        """Identity: what must be equal for two updates to share a process."""
        parts: list[Any] = [
            self.service,
            self.argv,
            self.more,
            sorted(self.environment.items()),
            self.directory,
            self.port,
        ]
        if self.parameter is not None:
            parts.append([self.parameter.name, self.parameter.version, self.parameter.value.hex()])
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


class Listener(Protocol):
    """An update that uses a plugin and shows what it says."""

    def owns(self, urn: str) -> bool:
        """Whether a resource is one of this update's stack."""
        ...

    def tell(self, severity: str, message: str, *, urn: str = "", stream_id: int = 0, ephemeral: bool = False) -> None:
        """Show a message."""
        ...


class PluginLog(engine_pb2_grpc.EngineServicer):
    """What a plugin says: its last words, and messages for the updates that use it.

    The `Engine` service of a plugin; it serves no other method of it. A message goes to the update whose resource it
    names. One that names none goes to a sole user only: what a plugin says of one stack is no business of another's.
    """

    def __init__(self, *, shows_output: bool) -> None:
        self._shows_output = shows_output
        self.words: deque[str] = deque(maxlen=_LAST_WORDS)
        self.listeners: list[Listener] = []

    def line(self, text: str, stream_id: int) -> None:
        """Take a line of the plugin's output, with its end."""
        self.words.append(text.rstrip())
        if self._shows_output and text.strip():
            self._tell("info" if stream_id == _STDOUT_STREAM else "info#err", text, stream_id=stream_id)

    async def Log(self, request: Any, context: Any) -> empty_pb2.Empty:
        if request.severity >= engine_pb2.WARNING:
            self.words.append(request.message.strip())
        if severity := _SEVERITIES.get(request.severity):
            self._tell(
                severity, request.message, urn=request.urn, stream_id=request.streamId, ephemeral=request.ephemeral
            )
        return empty_pb2.Empty()

    async def GetRootResource(self, request: Any, context: Any) -> engine_pb2.GetRootResourceResponse:
        return engine_pb2.GetRootResourceResponse()

    def _tell(self, severity: str, message: str, *, urn: str = "", stream_id: int = 0, ephemeral: bool = False) -> None:
        users = list(dict.fromkeys(self.listeners))
        concerned = [user for user in users if user.owns(urn)] if urn else users
        if len(concerned) == 1:
            concerned[0].tell(severity, message, urn=urn, stream_id=stream_id, ephemeral=ephemeral)


class PluginProcess:
    """One running plugin and the channel to it."""

    def __init__(
        self,
        command: PluginCommand,
        process: asyncio.subprocess.Process | None,
        engine: grpc.aio.Server,
        engine_address: str,
        log: PluginLog,
    ) -> None:
        self.command = command
        self._process = process  # None: somebody else's
        self._engine = engine
        self.engine_address = engine_address
        self.log = log
        self._readers: list[asyncio.Task[None]] = []
        self._channel: Any = None  # a `grpc.aio.Channel` once the plugin has said its port
        self.users = 0
        self.configured = asyncio.Lock()
        self.answers: dict[str, Any] = {}

    @classmethod
    async def start(cls, command: PluginCommand) -> PluginProcess:
        """Start a plugin and connect to the port it prints.

        Raises:
            ProviderError: it did not start; with its last words.
        """
        log = PluginLog(shows_output=command.shows_output)
        engine = grpc.aio.server(options=CHANNEL_OPTIONS)
        engine_pb2_grpc.add_EngineServicer_to_server(log, engine)
        address = f"127.0.0.1:{engine.add_insecure_port('127.0.0.1:0')}"
        await engine.start()
        try:
            process = None if command.port else await _spawn(command, address)
        except OSError as err:
            await engine.stop(None)
            raise ProviderError(f"the {command.service} plugin {command.name} did not start: {err}") from err
        plugin = cls(command, process, engine, address, log)
        if process is None:
            plugin._open(command.port)
        else:
            try:
                await plugin._connect(process)
            except asyncio.CancelledError:  # nobody else knows of it
                await plugin.close()
                raise
        return plugin

    @property
    def stub(self) -> provider_pb2_grpc.ResourceProviderStub:
        """The plugin's `ResourceProvider` service."""
        return provider_pb2_grpc.ResourceProviderStub(self._channel)

    @property
    def analyzer(self) -> analyzer_pb2_grpc.AnalyzerStub:
        """The plugin's `Analyzer` service."""
        return analyzer_pb2_grpc.AnalyzerStub(self._channel)

    @property
    def is_alive(self) -> bool:
        return self._process is None or self._process.returncode is None

    async def is_healthy(self) -> bool:
        """Whether it runs and answers."""
        if not self.is_alive:
            return False
        try:
            stub: Any = self.stub if self.command.service == "provider" else self.analyzer
            answer = await stub.GetPluginInfo(empty_pb2.Empty(), timeout=_HEALTH_SECONDS)
        except grpc.aio.AioRpcError as err:
            return err.code() is grpc.StatusCode.UNIMPLEMENTED
        return isinstance(answer, plugin_pb2.PluginInfo)

    async def death(self) -> str:
        """How it died, with its last words; "" while it lives."""
        if self._process is None:
            return f"the {self.command.service} plugin {self.command.name} at port {self.command.port} hung up"
        with suppress(TimeoutError):
            async with asyncio.timeout(1):  # a process that hung up is about to be reaped
                await self._process.wait()
        if self.is_alive:
            return ""
        await asyncio.wait(self._readers, timeout=1)
        code = self._process.returncode or 0
        how = f"was killed by signal {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        words = "\n".join(self.log.words)
        return f"the {self.command.service} plugin {self.command.name} {how}" + (
            f"; its last words:\n{words}" if words else ""
        )

    async def close(self) -> None:
        """End it."""
        if self._channel is not None:
            await self._channel.close(None)
        if self._process is not None:
            await self._end(self._process)
        for reader in self._readers:
            reader.cancel()
        await asyncio.gather(*self._readers, return_exceptions=True)
        await self._engine.stop(None)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        if self.is_alive:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        await process.wait()

    async def _connect(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None and process.stderr is not None
        self._readers.append(asyncio.ensure_future(self._listen(process.stderr, _STDERR_STREAM)))
        try:
            async with asyncio.timeout(_START_SECONDS):
                line = (await process.stdout.readline()).decode("utf-8", "replace").strip()
        except TimeoutError:
            line = ""
        if not line.isdigit():
            said = (
                await self.death()
                or f"the {self.command.service} plugin {self.command.name} printed {line!r} and not its port"
            )
            await self.close()
            raise ProviderError(said)
        self._readers.append(asyncio.ensure_future(self._listen(process.stdout, _STDOUT_STREAM)))
        self._open(int(line))

    def _open(self, port: int) -> None:
        self._channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=CHANNEL_OPTIONS)

    async def _listen(self, pipe: asyncio.StreamReader, stream_id: int) -> None:
        while True:
            try:
                line = await pipe.readline()
            except ValueError:  # longer than the reader's buffer
                continue
            if not line:
                return
            self.log.line(line.decode("utf-8", "replace"), stream_id)


async def _spawn(command: PluginCommand, engine_address: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-I",
        str(_TIED),
        *command.argv,
        engine_address,
        *command.more,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(command.environment),
        cwd=command.directory,
        start_new_session=True,
    )


@dataclass
class PluginPool:
    """All plugin processes of this process; on one event loop."""

    idle_seconds: float = _IDLE_SECONDS
    _processes: dict[tuple[str, str], PluginProcess] = field(default_factory=dict)
    _starting: dict[str, asyncio.Lock] = field(default_factory=dict)
    _timers: dict[tuple[str, str], asyncio.TimerHandle] = field(default_factory=dict)
    _ending: set[asyncio.Task[None]] = field(default_factory=set)

    async def acquire(self, command: PluginCommand, configuration: str) -> PluginProcess:
        """The process for this configuration, shared with whoever has the same; give it back with `release`.

        Args:
            configuration: identity of the configuration; "" takes any process of this plugin.

        Raises:
            ProviderError: it does not start.
        """
        plugin = command.key()
        async with self._starting.setdefault(plugin, asyncio.Lock()):
            key = self._choose(plugin, configuration)
            process = self._processes.get(key)
            if timer := self._timers.pop(key, None):
                timer.cancel()
            if process is not None and not await process.is_healthy():
                del self._processes[key]
                await self._end_if_unused(process)
                process = None
            if process is None:
                process = await PluginProcess.start(command)
            self._processes[plugin, configuration or key[1]] = process
            if configuration and key[1] != configuration:
                self._processes.pop(key, None)
            process.users += 1
            return process

    def _choose(self, plugin: str, configuration: str) -> tuple[str, str]:
        """The key of the process to take: the one so configured, else one that has no configuration yet."""
        if (plugin, configuration) in self._processes:
            return plugin, configuration
        if not configuration:
            return next((key for key in self._processes if key[0] == plugin), (plugin, ""))
        return plugin, ""

    async def release(self, process: PluginProcess) -> None:
        """Give a process back; without users it ends after a while."""
        process.users -= 1
        key = next((k for k, p in self._processes.items() if p is process), None)
        if key is None:
            await self._end_if_unused(process)
        elif process.users == 0 and process.command.port:  # whoever runs it may start it anew at any time
            del self._processes[key]
            await process.close()
        elif process.users == 0:
            loop = asyncio.get_running_loop()
            self._timers[key] = loop.call_later(self.idle_seconds, self._expire, key)

    async def close(self) -> None:
        """End all processes."""
        for timer in self._timers.values():
            timer.cancel()
        processes = list(self._processes.values())
        self._timers.clear()
        self._processes.clear()
        await asyncio.gather(*(p.close() for p in processes), *self._ending)

    def _expire(self, key: tuple[str, str]) -> None:
        self._timers.pop(key, None)
        process = self._processes.get(key)
        if process is not None and process.users == 0:
            del self._processes[key]
            task = asyncio.ensure_future(process.close())
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

    async def _end_if_unused(self, process: PluginProcess) -> None:
        if process.users == 0:
            await process.close()
