"""Which provider serves a resource type: the built-in one, the SDK's dynamic providers, or a plugin on this machine.

Starts nothing before it is needed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from pulumi.runtime.proto import provider_pb2

from engine.deploy.dynamic import PACKAGE as DYNAMIC
from engine.deploy.dynamic import VERSION as DYNAMIC_VERSION
from engine.deploy.dynamic import dynamic_command, dynamic_configuration
from engine.deploy.hosting import Hosting
from engine.deploy.installed_plugins import Plugins
from engine.deploy.local_program import read_runtime
from engine.deploy.packages import PackageRequest, mapped_environment
from engine.deploy.plugin import PluginProvider
from engine.deploy.plugin_process import PluginPool
from engine.deploy.property import PropertyMap
from engine.deploy.provider import (
    CallingProvider,
    CallResult,
    CheckResult,
    CreateResult,
    DiffResult,
    Provider,
    ProviderError,
    ReadResult,
    UpdateResult,
)
from engine.deploy.registry import SWITCH_TO_CLI
from engine.deploy.update import ProviderSource
from engine.deploy.update_target import UpdateTarget


class ProviderChoice(StrEnum):
    """`--provider-source`: auto prefers the built-in provider and takes the plugin for what it lacks."""

    AUTO = "auto"
    BUILTIN = "builtin"
    PLUGIN = "plugin"


@dataclass(frozen=True)
class ProviderSources:
    """`ProviderSource` of one command: all there is for its project, environment and configuration."""

    builtin: ProviderSource
    pool: PluginPool
    project_file: Path
    target: UpdateTarget
    environment: Mapping[str, str]
    choice: ProviderChoice = ProviderChoice.AUTO

    @cached_property
    def _plugins(self) -> Plugins:
        return Plugins(self.environment, self.project_file)

    @cached_property
    def _known(self) -> dict[str, bool]:
        return {}

    def provides(self, package: str, type_: str) -> bool:
        """See `ProviderSource.provides`."""
        if package == DYNAMIC or (self.choice is not ProviderChoice.PLUGIN and self.builtin.provides(package, type_)):
            return True
        if self.choice is ProviderChoice.BUILTIN:
            return False
        if package not in self._known:
            self._known[package] = self._plugins.has(package)
        return self._known[package]

    async def load(self, package: str, version: str) -> Provider:
        """See `ProviderSource.load`."""
        if package == DYNAMIC:
            return self._dynamic()
        has_builtin = self.choice is not ProviderChoice.PLUGIN and self.builtin.provides(package, "")
        if not has_builtin:
            return self._plugin(PackageRequest(package, version))
        builtin = await self.builtin.load(package, version)
        if self.choice is ProviderChoice.BUILTIN or not self._plugins.has(package):
            return builtin
        # Made only when it is needed: a plugin of another version is no reason to refuse what the built-in has.
        return SplitProvider(package, builtin, partial(self._plugin, PackageRequest(package, version)), self.builtin)

    async def load_plugin(self, request: PackageRequest, mappings: Mapping[str, str]) -> Provider:
        """See `PluginLoader.load_plugin`."""
        return self._plugin(request, mappings)

    def _plugin(self, request: PackageRequest, mappings: Mapping[str, str] | None = None) -> PluginProvider:
        builtin_only = self.choice is ProviderChoice.BUILTIN
        environment = mapped_environment(self.environment, mappings or {})
        command = None if builtin_only else self._plugins.command(request, environment)
        if command is None:
            raise ProviderError(
                f"the embedded engine has no provider for '{request.name}' and no plugin "
                f"pulumi-resource-{request.name} is on "
                f"PATH or in {self._plugins.folder}: install the plugin, or {SWITCH_TO_CLI}"
            )
        return PluginProvider(request.package, request.version, command, self.pool, folder=self.target.directory)

    def _dynamic(self) -> PluginProvider:
        runtime = read_runtime(self.project_file)
        command = dynamic_command(runtime, self.target.project, self.environment)
        configuration = dynamic_configuration(self.target.config, self.target.secret_keys)
        return PluginProvider(
            DYNAMIC,
            DYNAMIC_VERSION,
            command,
            self.pool,
            folder=runtime.directory,
            fixed_configuration=configuration,
        )


class SplitProvider:
    """The built-in provider of a package, and its plugin for the types the built-in lacks."""

    def __init__(
        self, package: str, builtin: Provider, make_plugin: Callable[[], PluginProvider], source: ProviderSource
    ) -> None:
        self.package, self.version = package, builtin.version
        self._builtin = builtin
        self._make_plugin = make_plugin
        self._plugin: PluginProvider | None = None  # configured
        self._source = source
        self._inputs: PropertyMap = {}
        self._hosting: Hosting | None = None
        self._configuring = asyncio.Lock()

    async def check_config(self, urn: str, olds: PropertyMap, news: PropertyMap) -> CheckResult:
        """See `Provider.check_config`."""
        return await self._builtin.check_config(urn, olds, news)

    async def diff_config(self, urn: str, olds: PropertyMap, news: PropertyMap) -> DiffResult:
        """See `Provider.diff_config`."""
        return await self._builtin.diff_config(urn, olds, news)

    async def configure(self, inputs: PropertyMap) -> None:
        """See `Provider.configure`; the plugin is configured when its first type comes."""
        self._inputs = inputs
        await self._builtin.configure(inputs)

    async def check(self, urn: str, type_: str, *rest: Any) -> CheckResult:
        """See `Provider.check`."""
        return await (await self._of(type_)).check(urn, type_, *rest)

    async def diff(self, urn: str, type_: str, *rest: Any) -> DiffResult:
        """See `Provider.diff`."""
        return await (await self._of(type_)).diff(urn, type_, *rest)

    async def create(self, urn: str, type_: str, *rest: Any) -> CreateResult:
        """See `Provider.create`."""
        return await (await self._of(type_)).create(urn, type_, *rest)

    async def read(self, urn: str, type_: str, *rest: Any) -> ReadResult:
        """See `Provider.read`."""
        return await (await self._of(type_)).read(urn, type_, *rest)

    async def update(self, urn: str, type_: str, *rest: Any) -> PropertyMap | UpdateResult:
        """See `Provider.update`."""
        return await (await self._of(type_)).update(urn, type_, *rest)

    async def delete(self, urn: str, type_: str, *rest: Any) -> None:
        """See `Provider.delete`."""
        await (await self._of(type_)).delete(urn, type_, *rest)

    async def lookup(self, urn: str, type_: str, inputs: PropertyMap) -> str | None:
        """See `Provider.lookup`."""
        return await (await self._of(type_)).lookup(urn, type_, inputs)

    async def invoke(self, token: str, args: PropertyMap) -> PropertyMap:
        """See `Provider.invoke`."""
        return await (await self._of(token)).invoke(token, args)

    def join(self, hosting: Hosting) -> None:
        """See `HostedProvider.join`."""
        self._hosting = hosting

    async def call(
        self, token: str, args: PropertyMap, dependencies: Mapping[str, Sequence[str]], preview: bool
    ) -> CallResult:
        """See `CallingProvider.call`."""
        provider = await self._of(token)
        if not isinstance(provider, CallingProvider):
            raise ProviderError(f"the provider {self.package} here has no methods, so not {token}: {SWITCH_TO_CLI}")
        return await provider.call(token, args, dependencies, preview)

    async def construct(self, request: provider_pb2.ConstructRequest) -> provider_pb2.ConstructResponse | None:
        """See `ConstructingProvider.construct`."""
        return await (await self._configured_plugin()).construct(request)

    async def close(self) -> None:
        """See `Provider.close`."""
        try:
            await self._builtin.close()
        finally:
            if self._plugin is not None:
                await self._plugin.close()

    async def _of(self, type_: str) -> Provider:
        if self._source.provides(self.package, type_):
            return self._builtin
        return await self._configured_plugin()

    async def _configured_plugin(self) -> PluginProvider:
        async with self._configuring:
            if self._plugin is None:
                plugin = self._make_plugin()
                if self._hosting is not None:
                    plugin.join(self._hosting)
                try:
                    await plugin.configure(self._inputs)
                except ProviderError:
                    await plugin.close()
                    raise
                self._plugin = plugin
        return self._plugin
