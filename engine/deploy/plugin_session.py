"""One provider's use of a plugin: takes its process, introduces the engine, configures it, calls it, gives it back.

Knows the calls' order and their failures, not what they carry (`plugin.py`). Source: pulumi
`sdk/go/common/resource/plugin/provider_plugin.go`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2

from engine.deploy.hosting import Hosting
from engine.deploy.plugin_process import PluginCommand, PluginPool, PluginProcess
from engine.deploy.provider import ProviderError


class ProviderDied(Exception):
    """A plugin died inside a call that changes the cloud: how far it got is unknown, so the operation stays pending."""


class Unimplemented(ProviderError):
    """The plugin has no such method."""


@dataclass(frozen=True)
class Abilities:
    """What a configured plugin can take."""

    secrets: bool = False
    resources: bool = False
    outputs: bool = False
    preview: bool = False
    autonaming: bool = False


class PluginSession:
    """The processes one provider of one update holds.

    Attributes:
        abilities: of the configured process.
        hosting: the update; None where a provider is used outside of one.
        directory: where the next call's process works; another than before takes another process.
    """

    def __init__(self, command: PluginCommand, pool: PluginPool) -> None:
        self._command = command
        self._pool = pool
        self._held: list[PluginProcess] = []
        self._bare: PluginProcess | None = None
        self._starting = asyncio.Lock()
        self._configuration: tuple[str, provider_pb2.ConfigureRequest] | None = None
        self.directory = command.directory
        self.process: PluginProcess | None = None
        self.abilities = Abilities()
        self.hosting: Hosting | None = None

    async def unconfigured(self) -> PluginProcess:
        """A process for questions about a configuration; they carry it whole, so any process of the plugin will do."""
        async with self._starting:
            if self._bare is None or self._bare.command.directory != self.directory:
                self._bare = await self._acquire("")
            return self._bare

    async def configure(self, identity: str, request: provider_pb2.ConfigureRequest) -> None:
        """Take the process so configured, shared with whoever has the same configuration.

        Args:
            identity: of the configuration.
        """
        self._configuration = identity, request
        async with self._starting:
            await self._configured(identity, request)

    async def _configured(self, identity: str, request: provider_pb2.ConfigureRequest) -> PluginProcess:
        process = await self._acquire(identity)
        async with process.configured:
            if "abilities" not in process.answers:
                process.answers["abilities"] = await self._configure(process, request)
        self.process, self.abilities = process, process.answers["abilities"]
        return process

    async def close(self) -> None:
        """Give the processes back to the pool."""
        held, self._held = self._held, []
        for process in held:
            if self.hosting is not None:
                process.log.listeners.remove(self.hosting)
            await self._pool.release(process)

    async def change(self, method: str, request: Any, urn: str, *, preview: bool) -> Any:
        """A call that changes the cloud.

        Raises:
            ProviderDied: it is unknown how far it got.
            grpc.aio.AioRpcError: it failed, and the plugin lives.
        """
        process = await self._ready()
        try:
            return await self._call(method, request, process)
        except grpc.aio.AioRpcError as err:
            died = "" if preview or err.code() is not grpc.StatusCode.UNAVAILABLE else await process.death()
            if died:
                raise ProviderDied(f"{died}\nit was busy with {method.lower()} of {urn}") from err
            raise

    async def ask(self, method: str, request: Any, process: PluginProcess | None = None) -> Any:
        """A call that changes nothing.

        Raises:
            Unimplemented: the plugin has no such method.
            ProviderError: it failed; the plugin's own words.
        """
        try:
            return await self.inquire(method, request, process)
        except grpc.aio.AioRpcError as err:
            raise ProviderError(err.details() or err.code().name) from err

    async def inquire(self, method: str, request: Any, process: PluginProcess | None = None) -> Any:
        """The same, for an answer whose failure has details of its own.

        Raises:
            grpc.aio.AioRpcError: it failed.
        """
        process = process or await self._ready()
        try:
            return await self._call(method, request, process)
        except grpc.aio.AioRpcError as err:
            if err.code() is grpc.StatusCode.UNIMPLEMENTED:
                raise Unimplemented(f"{self._command.name} does not implement {method}: {err.details()}") from err
            if err.code() is grpc.StatusCode.UNAVAILABLE and (died := await process.death()):
                raise ProviderError(died) from err
            raise

    # -- the start of a process --------------------------------------------------------------------------------------

    async def _acquire(self, configuration: str) -> PluginProcess:
        process = await self._pool.acquire(replace(self._command, directory=self.directory), configuration)
        self._held.append(process)
        if self.hosting is not None:
            process.log.listeners.append(self.hosting)
        async with process.configured:
            if "handshake" not in process.answers:
                process.answers["handshake"] = await self._introduce(process)
        return process

    async def _introduce(self, process: PluginProcess) -> provider_pb2.ProviderHandshakeResponse:
        command = self._command
        request = provider_pb2.ProviderHandshakeRequest(
            engine_address=process.engine_address,
            supports_refresh_before_update=True,
            invoke_with_preview=True,
            root_directory=None if command.port else command.root,
            program_directory=None if command.port else command.root,
        )
        try:
            promised = await self.ask("Handshake", request, process)
        except Unimplemented:
            promised = provider_pb2.ProviderHandshakeResponse()
            if command.port:
                await self.ask("Attach", plugin_pb2.PluginAttach(address=process.engine_address), process)
        if command.parameter is not None:
            await self._parameterize(process)
        assert isinstance(promised, provider_pb2.ProviderHandshakeResponse)
        return promised

    async def _parameterize(self, process: PluginProcess) -> None:
        wanted = self._command.parameter
        assert wanted is not None
        value = provider_pb2.ParameterizeRequest.ParametersValue(
            name=wanted.name, version=wanted.version, value=wanted.value
        )
        answer = await self.ask("Parameterize", provider_pb2.ParameterizeRequest(value=value), process)
        if answer.name != wanted.name:
            raise ProviderError(
                f"the provider plugin {self._command.name} became package {answer.name!r} of the parameter of package "
                f"{wanted.name!r}: generate the package's SDK anew with `pulumi package add`"
            )

    async def _configure(self, process: PluginProcess, request: provider_pb2.ConfigureRequest) -> Abilities:
        promised = process.answers["handshake"]
        try:
            response = await self.ask("Configure", request, process)
        except Unimplemented:
            response = provider_pb2.ConfigureResponse()
        return Abilities(
            secrets=response.acceptSecrets or promised.accept_secrets,
            resources=response.acceptResources or promised.accept_resources,
            outputs=response.acceptOutputs or promised.accept_outputs,
            preview=response.supportsPreview,
            autonaming=response.supports_autonaming_configuration or promised.supports_autonaming_configuration,
        )

    # -- one call ----------------------------------------------------------------------------------------------------

    async def _call(self, method: str, request: Any, process: PluginProcess) -> Any:
        try:
            return await getattr(process.stub, method)(request)
        except asyncio.CancelledError:
            if process.users == self._held.count(process):  # one that others use as well must go on for them
                await self._cancel(process)
            raise

    async def _cancel(self, process: PluginProcess) -> None:
        try:
            await process.stub.Cancel(empty_pb2.Empty(), timeout=1)
        except grpc.aio.AioRpcError:
            return  # it may not know how, or be dead already

    async def _ready(self) -> PluginProcess:
        async with self._starting:
            process = self.process
            if process is not None and process.command.directory != self.directory and self._configuration is not None:
                process = await self._configured(*self._configuration)
        if process is None:
            raise ProviderError(
                f"the configuration of the provider plugin {self._command.name} is not known yet: apply what it "
                "depends on first"
            )
        return process
