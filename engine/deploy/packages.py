"""Packages as programs ask for them: a plugin, its version and where it comes from, and what makes it another package.

In a checkpoint all of it is among the inputs of the package's provider. Source: pulumi
`pkg/resource/deploy/providers/provider.go`, ProviderRequest; `registry.go`, SetProviderParameterization.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from semver import VersionInfo

from engine.deploy.property import PropertyMap
from engine.deploy.urn import default_provider_name

INTERNAL = "__internal"
ENV_VAR_MAPPINGS = "envVarMappings"


@dataclass(frozen=True)
class Parameterization:
    """What makes another package of a plugin, for example of a bridge to all providers of another tool."""

    name: str
    version: str
    value: bytes


@dataclass(frozen=True)
class PackageRequest:
    """One package.

    Attributes:
        name: of the plugin.
        version: of the plugin; "" takes what there is.
        checksums: platform → SHA-256 in hexadecimal, as pairs.
    """

    name: str
    version: str = ""
    download_url: str = ""
    checksums: tuple[tuple[str, str], ...] = ()
    parameter: Parameterization | None = None

    @property
    def package(self) -> str:
        """The package's own name, which its types begin with."""
        return self.parameter.name if self.parameter else self.name

    def default_name(self) -> str:
        """The name of the package's default provider."""
        name = default_provider_name(self.parameter.version if self.parameter else self.version)
        return f"{name}_{_as_name(self.download_url)}" if self.download_url else name

    def inputs(self) -> PropertyMap:
        """The inputs of its provider that say which plugin it is; none for whatever plugin there is."""
        internal: PropertyMap = {}
        found: PropertyMap = {"version": self.version} if self.version else {}
        if self.download_url:
            internal["pluginDownloadURL"] = self.download_url
        if self.checksums:
            internal["pluginChecksums"] = dict(self.checksums)
        if self.parameter is not None:
            internal |= {"name": self.name, **found}
            internal["parameterization"] = base64.b64encode(self.parameter.value).decode()
            found = {"version": self.parameter.version}
        return {**found, INTERNAL: internal} if found or internal else {}

    def complaint(self) -> str:
        """What is wrong with it; "" if nothing is."""
        if not self.name:
            return "package name is empty"
        for version in (self.version, self.parameter.version if self.parameter else ""):
            if version and not VersionInfo.is_valid(version):
                return f"package '{self.package}' has the version {version!r}: write it as MAJOR.MINOR.PATCH"
        return ""

    @classmethod
    def from_inputs(cls, package: str, inputs: PropertyMap) -> PackageRequest:
        """The same from a provider's inputs; states of old engines have no part of their own for it."""
        internal = inputs.get(INTERNAL)
        internal = internal if isinstance(internal, dict) else inputs
        version = str(inputs.get("version") or "")
        url, encoded = str(internal.get("pluginDownloadURL") or ""), internal.get("parameterization")
        if internal is inputs or not isinstance(encoded, str):
            return cls(package, version, url)
        parameter = Parameterization(package, version, base64.b64decode(encoded))
        return cls(str(internal.get("name") or package), str(internal.get("version") or ""), url, (), parameter)


class Packages:
    """The packages one program has registered, by reference."""

    def __init__(self) -> None:
        self._by_reference: dict[str, PackageRequest] = {}
        self._plugins: dict[str, str] = {}

    def register(self, request: PackageRequest, new_reference: str) -> str:
        """The reference to a package: the one it has, or the new one."""
        for reference, known in self._by_reference.items():
            if known == request:
                return reference
        self._by_reference[new_reference] = request
        self._plugins[request.package] = request.name
        return new_reference

    def find(self, reference: str) -> PackageRequest | None:
        """The package behind a reference."""
        return self._by_reference.get(reference)

    def plugin_of(self, package: str) -> str:
        """The name of the plugin that serves a package."""
        return self._plugins.get(package, package)


def asked_of(package: str, request: Any) -> PackageRequest:
    """The package a registration, read, invoke or call names itself; `request` is its message."""
    checksums = tuple(sorted((name, value.hex()) for name, value in request.pluginChecksums.items()))
    return PackageRequest(package, request.version, request.pluginDownloadURL.rstrip("/"), checksums)


def described_by(request: Any) -> PackageRequest:
    """The package of a `RegisterPackageRequest`."""
    given, parameter = request.parameterization, None
    if request.HasField("parameterization"):
        parameter = Parameterization(given.name, given.version, given.value)
    checksums = tuple(sorted((name, value.hex()) for name, value in request.checksums.items()))
    return PackageRequest(request.name, request.version, request.download_url.rstrip("/"), checksums, parameter)


def env_var_mappings(inputs: PropertyMap) -> Mapping[str, str]:
    """New name → the name the plugin knows the environment variable by, of a provider's inputs."""
    internal = inputs.get(INTERNAL)
    found = internal.get(ENV_VAR_MAPPINGS) if isinstance(internal, dict) else None
    return {str(new): str(old) for new, old in found.items()} if isinstance(found, dict) else {}


def mapped_environment(environment: Mapping[str, str], mappings: Mapping[str, str]) -> dict[str, str]:
    """The environment with the mapped variables under the names the plugin knows."""
    return {**environment, **{old: environment[new] for new, old in mappings.items() if new in environment}}


def _as_name(url: str) -> str:
    """A URL as part of a resource's name. Source: pulumi `tokens.IntoQName`."""
    parts = [part for part in url.split("/") if part]
    return "/".join(re.sub(r"[^A-Za-z0-9_.-]", "_", part) for part in parts) or "_"
