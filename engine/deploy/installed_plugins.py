"""The provider plugins of this machine: named by the project, on PATH, or in `$PULUMI_HOME/plugins`.

Finds them and says how each starts; starts none. Source: pulumi `sdk/go/common/workspace/plugins.go`, GetPluginPath;
`sdk/python/cmd/pulumi-language-python/main.go`, RunPlugin.
"""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from semver import VersionInfo

from engine.deploy.local_program import LocalRuntime, read_runtime
from engine.deploy.packages import PackageRequest
from engine.deploy.plugin_process import PluginCommand
from engine.deploy.provider import ProviderError
from engine.deploy.registry import SWITCH_TO_CLI
from engine.deploy.stack_config import ConfigError

_FOLDER_FILE = "PulumiPlugin.yaml"
_ATTACHED = "PULUMI_DEBUG_PROVIDERS"  # name:port,…: providers somebody runs in a debugger


@dataclass(frozen=True)
class Plugins:
    """What there is for one project and environment."""

    environment: Mapping[str, str]
    project_file: Path

    @cached_property
    def folder(self) -> Path:
        """Where `pulumi plugin install` puts them."""
        home = self.environment.get("PULUMI_HOME") or f"{self.environment.get('HOME', '')}/.pulumi"
        return Path(home) / "plugins"

    @cached_property
    def attached(self) -> Mapping[str, int]:
        """Plugins that run already: name → port.

        Raises:
            ProviderError: the variable is not such a list.
        """
        pairs = [entry.rpartition(":") for entry in self.environment.get(_ATTACHED, "").split(",") if entry.strip()]
        if wrong := [f"{name}:{port}" for name, _, port in pairs if not name or not port.isdigit()]:
            raise ProviderError(f"{_ATTACHED}: {', '.join(wrong)}: write it as name:port,name:port")
        return {name.strip(): int(port) for name, _, port in pairs}

    def find(self, package: str, version: str) -> Path | None:
        """The plugin's program or folder: the version asked for, without one the newest; None: there is no such plugin.

        Raises:
            ProviderError: there is one, of other versions only; or the project names a folder that has none.
        """
        if named := self._named.get(package):
            return _checked(package, named)
        if on_path := shutil.which(f"pulumi-resource-{package}", path=self.environment.get("PATH", "")):
            return Path(on_path).absolute()
        installed = self._installed(package)
        if not installed:
            return None
        wanted = version.removeprefix("v")
        if not wanted:
            return installed[max(installed, key=VersionInfo.parse)]
        if wanted not in installed:
            raise ProviderError(
                f"the plugin for '{package}' is installed in version {', '.join(sorted(installed))} and the program "
                f"asks for {wanted}: run `pulumi plugin install resource {package} v{wanted}`, or {SWITCH_TO_CLI}"
            )
        return installed[wanted]

    def has(self, package: str) -> bool:
        """Whether there is such a plugin in any version, fit or not."""
        try:
            return package in self.attached or self.find(package, "") is not None
        except ProviderError:
            return True  # `command` says what is wrong with it

    def command(self, request: PackageRequest, environment: Mapping[str, str]) -> PluginCommand | None:
        """How to start a plugin; None: there is no such plugin.

        Args:
            environment: of the plugin's process.

        Raises:
            ProviderError: it cannot be started.
        """
        package, parameter = request.name, request.parameter
        name = f"pulumi-resource-{package}"
        if port := self.attached.get(package):
            return PluginCommand(name, (), environment, parameter=parameter, port=port)
        found = self.find(package, request.version)
        if found is None:
            return None
        if found.is_file():
            return PluginCommand(name, (str(found),), environment, root=str(found.parent), parameter=parameter)
        runtime = _runtime(package, found)
        argv, child = _argv(package, found, runtime), runtime.environment(environment)
        return PluginCommand(name, argv, child, root=str(found), parameter=parameter)

    @cached_property
    def _named(self) -> Mapping[str, Path]:
        """What the project's `plugins` and `packages` say: package → folder on this machine."""
        try:
            data = yaml.safe_load(self.project_file.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError, UnicodeDecodeError):
            return {}  # a project without a file; a broken one is refused by whoever runs its program
        if not isinstance(data, dict):
            return {}
        found = {}
        for entry in _map(data.get("plugins")).get("providers") or []:
            if isinstance(entry, dict) and "name" in entry and "path" in entry:
                found[str(entry["name"])] = str(entry["path"])
        for name, spec in _map(data.get("packages")).items():
            source = str(_map(spec).get("source", "")) if isinstance(spec, dict) else str(spec)
            if source.startswith((".", "/")):  # others are names of plugins or addresses
                found.setdefault(str(name), source)
        return {name: self.project_file.parent / path for name, path in found.items()}

    def _installed(self, package: str) -> dict[str, Path]:
        found = {}
        for folder in self.folder.glob(f"resource-{package}-v*"):
            version, program = folder.name.removeprefix(f"resource-{package}-v"), folder / f"pulumi-resource-{package}"
            if VersionInfo.is_valid(version) and program.is_file():
                found[version] = program
            elif VersionInfo.is_valid(version) and (folder / _FOLDER_FILE).is_file():
                found[version] = folder
        return found


def _map(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _checked(package: str, folder: Path) -> Path:
    program = folder / f"pulumi-resource-{package}"
    if program.is_file():
        return program.absolute()
    if not (folder / _FOLDER_FILE).is_file():
        raise ProviderError(
            f"the project says that package '{package}' is in {folder}, which has neither {program.name} nor "
            f"{_FOLDER_FILE}: correct `packages` or `plugins` in Pulumi.yaml"
        )
    return folder.absolute()


def _runtime(package: str, folder: Path) -> LocalRuntime:
    """The Python of a plugin's folder; like the official engine's, its `venv` where it names none and has one."""
    try:
        runtime = read_runtime(folder / _FOLDER_FILE)
    except ConfigError as err:
        raise ProviderError(f"the plugin for '{package}' cannot be started: {err}") from err
    own = folder / "venv"
    if runtime.virtualenv is None and (own / "bin" / "python").exists():
        return LocalRuntime(own / "bin" / "python", own, runtime.directory)
    return runtime


def _argv(package: str, folder: Path, runtime: LocalRuntime) -> tuple[str, ...]:
    if (folder / "__main__.py").is_file():
        return (str(runtime.interpreter), "-u", str(folder))
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        project = {}
    name = _map(project.get("project")).get("name")
    if not name or "build-system" not in project:
        raise ProviderError(
            f"the plugin for '{package}' cannot be started: {folder} has neither __main__.py nor a pyproject.toml "
            "that can be built"
        )
    return (str(runtime.interpreter), "-u", "-m", "pulumi.run.plugin", str(name))
