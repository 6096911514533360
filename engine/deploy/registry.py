"""The providers of one update: loaded by package, configured by provider resources, found by reference.

Which providers exist at all is a `ProviderSource`'s business. Source: pulumi
`pkg/resource/deploy/providers/registry.go`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from engine.deploy.diff import diff_inputs
from engine.deploy.hosting import HostedProvider, Hosting
from engine.deploy.packages import INTERNAL, PackageRequest, Packages, env_var_mappings
from engine.deploy.property import PropertyMap
from engine.deploy.provider import CheckResult, DiffResult, Provider, ProviderError
from engine.deploy.resource import ResourceState
from engine.deploy.urn import make_reference, package_of, parse_reference

_ENGINE_KEYS = frozenset({INTERNAL, "version", "pluginDownloadURL"})
SWITCH_TO_CLI = "set STACKYARD_PULUMI=cli to run this stack with the official Pulumi CLI instead"


class ProviderLoader(Protocol):
    """The part of a `ProviderSource` the registry needs."""

    def provides(self, package: str, type_: str) -> bool: ...

    async def load(self, package: str, version: str) -> Provider: ...


@runtime_checkable
class PluginLoader(Protocol):
    """A source that has plugins, which can be made other packages and started in other environments."""

    async def load_plugin(self, request: PackageRequest, mappings: Mapping[str, str]) -> Provider:
        """A new, unconfigured provider over a plugin.

        Args:
            mappings: new name → the name the plugin knows an environment variable by.
        """
        ...


@dataclass
class _Slot:
    provider: Provider
    inputs: PropertyMap
    configured: asyncio.Task[None] | None = None


class ProviderRegistry:
    """Loads each provider once per reference and configures it when it is first needed.

    Attributes:
        hosting: the update, for providers in other processes.
        packages: those the program has registered.
    """

    def __init__(self, source: ProviderLoader, known: Sequence[ResourceState], hosting: Hosting | None = None) -> None:
        self._source = source
        self.hosting = hosting
        self.packages = Packages()
        self._known = {make_reference(s.urn, s.id): s for s in known if s.type.startswith("pulumi:providers:")}
        self._slots: dict[str, _Slot] = {}
        self._checked: dict[str, Provider] = {}
        self._loaded: list[Provider] = []
        self._loading: dict[str, asyncio.Lock] = {}

    def provides(self, type_: str) -> bool:
        """Whether anybody provides this resource type."""
        package = package_of(type_)
        plugin = self.packages.plugin_of(package)
        return self._source.provides(plugin, type_ if plugin == package else "")

    async def check(self, urn: str, type_: str, olds: PropertyMap, news: PropertyMap) -> CheckResult:
        """Check a provider resource's inputs; the instance waits for `activate`."""
        provider = await self._load(package_of(type_), news)
        self._checked[urn] = provider
        result = await provider.check_config(urn, own_config(olds), own_config(news))
        kept = {k: v for k, v in news.items() if k in _ENGINE_KEYS and k != INTERNAL}
        internal = {INTERNAL: news.get(INTERNAL, {})} if "version" in news or INTERNAL in news else {}
        return CheckResult({**result.inputs, **kept, **internal}, result.failures)

    async def diff(self, urn: str, old: ResourceState, news: PropertyMap) -> DiffResult:
        """Compare a provider resource with its old state; a new version alone is an update."""
        provider = self._checked[urn]
        result = await provider.diff_config(urn, own_config(old.inputs), own_config(news))
        if result.changes or result.replace_keys:
            return result
        plain = diff_inputs({**old.inputs, INTERNAL: {}}, {**news, INTERNAL: {}})
        return plain if result.changes is None or not _same_version(old.inputs, news) else result

    def activate(self, urn: str, id: str, inputs: PropertyMap) -> None:
        """Make a checked provider findable under its reference."""
        self._slots[make_reference(urn, id)] = _Slot(self._checked.pop(urn), inputs)

    def is_active(self, reference: str) -> bool:
        """Whether this update has registered, or already used, the provider behind a reference."""
        return reference in self._slots

    async def get(self, reference: str) -> Provider:
        """The configured provider behind a reference: of this update, or of the state it began with.

        Raises:
            ProviderError: nobody knows the reference, or the provider refuses its configuration.
        """
        slot = self._slots.get(reference)
        if slot is None:
            async with self._loading.setdefault(reference, asyncio.Lock()):
                slot = self._slots.get(reference) or await self._from_state(reference)
                self._slots[reference] = slot
        if slot.configured is None:
            slot.configured = asyncio.ensure_future(slot.provider.configure(own_config(slot.inputs)))
        await asyncio.shield(slot.configured)
        return slot.provider

    async def close(self) -> None:
        """Give back all providers; one that cannot close does not keep the others from it."""
        for provider in self._loaded:
            with suppress(ProviderError, OSError):
                await provider.close()

    async def _from_state(self, reference: str) -> _Slot:
        state = self._known.get(reference)
        if state is None:
            urn, _ = parse_reference(reference)
            raise ProviderError(
                f"the state names provider {urn} with an id it does not contain: run `refresh`, or repair the state "
                "with `stack export`, an editor and `stack import`"
            )
        provider = await self._load(package_of(state.type), state.inputs)
        return _Slot(provider, state.inputs)

    async def _load(self, package: str, inputs: PropertyMap) -> Provider:
        request, mappings = PackageRequest.from_inputs(package, inputs), env_var_mappings(inputs)
        if request.parameter is None and not mappings:
            provider = await self._source.load(package, request.version)
        else:
            provider = await load_plugin(self._source, request, mappings)
        if self.hosting is not None and isinstance(provider, HostedProvider):
            provider.join(self.hosting)
        self._loaded.append(provider)
        return provider


async def load_plugin(source: ProviderLoader, request: PackageRequest, mappings: Mapping[str, str]) -> Provider:
    """A provider over a plugin.

    Raises:
        ProviderError: the source has no plugins.
    """
    if not isinstance(source, PluginLoader):
        what = "parameterized" if request.parameter else "given other environment variables"
        raise ProviderError(f"the provider for '{request.name}' here cannot be {what}: {SWITCH_TO_CLI}")
    return await source.load_plugin(request, mappings)


def own_config(inputs: PropertyMap) -> PropertyMap:
    """A provider resource's inputs without the engine's own keys."""
    return {k: v for k, v in inputs.items() if k not in _ENGINE_KEYS}


def _same_version(old: PropertyMap, new: PropertyMap) -> bool:
    return bool(old.get("version") == new.get("version"))


def provider_outputs(inputs: PropertyMap) -> PropertyMap:
    """A provider resource's outputs: its inputs without what is internal."""
    return {k: v for k, v in inputs.items() if k != INTERNAL}


async def ask_diff(
    provider: Provider, urn: str, old: ResourceState, news: PropertyMap, ignore_changes: Sequence[str]
) -> DiffResult:
    """A provider's Diff of one resource; where it cannot say, the inputs are compared."""
    result = await provider.diff(urn, old.type, old.id, old.inputs, old.outputs, news, ignore_changes)
    return diff_inputs(old.inputs, news) if result.changes is None else result
