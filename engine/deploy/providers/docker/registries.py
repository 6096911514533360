"""Image names and who we are to the registries they name. Asks no registry; may ask a credential helper."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from docker.auth import INDEX_URL, AuthConfig
from docker.errors import DockerException
from docker.utils.config import load_general_config

HUB = "registry-1.docker.io"
_HUB_NAMES = ("docker.io", "index.docker.io", HUB, INDEX_URL)


@dataclass(frozen=True)
class ImageName:
    """A reference taken apart. `registry` is HUB if none is named; `tag` may be a digest `sha256:…`."""

    registry: str
    repository: str
    tag: str

    @property
    def is_digest(self) -> bool:
        return ":" in self.tag


def parse_image(name: str) -> ImageName:
    """Take a reference apart: `[registry/]repository[:tag][@digest]`."""
    first, slash, _rest = name.partition("/")
    named = bool(slash) and ("." in first or ":" in first or first == "localhost" or first != first.lower())
    registry = first if named else HUB
    rest = name[len(first) + 1 :] if named else name
    rest, at, digest = rest.partition("@")
    repository, _, tag = rest.partition(":")
    if not named and "/" not in repository:
        repository = f"library/{repository}"
    return ImageName(registry, repository, digest if at else tag or "latest")


def without_tag(name: str) -> str:
    """A reference without its tag and digest."""
    name = name.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}"


@dataclass(frozen=True)
class Credentials:
    """One `registryAuth`: a name and password, or a Docker configuration that has them."""

    username: str = ""
    password: str = ""
    config_text: str = ""
    config_file: Path | None = None
    disabled: bool = False

    def header(self, registry: str) -> dict[str, str] | None:
        """What the daemon is told about us; None: nothing."""
        if self.disabled:
            return None
        if self.username and self.password:
            return {"username": self.username, "password": self.password, "serveraddress": registry}
        if self.config_text:
            return _from_config(json.loads(self.config_text), registry)
        return _from_file(self.config_file, registry) if self.config_file is not None else None


@dataclass(frozen=True)
class Registries:
    """Credentials by address, and the machine's configuration for those that are not given."""

    known: Mapping[str, Credentials]
    config_file: Path

    def header(self, registry: str) -> dict[str, str] | None:
        """Who we are to a registry; None: nobody."""
        for address, credentials in self.known.items():
            if _host(address) == _host(registry):
                return credentials.header(registry)
        return _from_file(self.config_file, registry)

    def for_builds(self) -> dict[str, dict[str, str]]:
        """Who we are to the registries of images that a build begins with, by the address a builder knows them by."""
        headers = {address: credentials.header(address) for address, credentials in self.known.items()}
        return {INDEX_URL if _host(a) == HUB else _host(a): header for a, header in headers.items() if header}


def config_file_path(environment: Mapping[str, str]) -> Path:
    """The machine's Docker configuration."""
    place = environment.get("DOCKER_CONFIG")
    if place:
        return Path(place) if Path(place).is_file() else Path(place) / "config.json"
    return Path(environment.get("HOME") or Path.home()) / ".docker" / "config.json"


def encoded(header: Mapping[str, str] | None) -> str:
    """A header's value as the daemon wants it (URL-safe base64 of JSON)."""
    return base64.urlsafe_b64encode(json.dumps(dict(header or {})).encode()).decode()


def _host(address: str) -> str:
    host = address.removeprefix("https://").removeprefix("http://").partition("/")[0].lower()
    return HUB if host in _HUB_NAMES or address in _HUB_NAMES else host


def _from_file(file: Path, registry: str) -> dict[str, str] | None:
    if not file.is_file():
        return None
    return _from_config(load_general_config(str(file)), registry)


def _from_config(config: Mapping[str, object], registry: str) -> dict[str, str] | None:
    name = "docker.io" if _host(registry) == HUB else registry
    try:
        found = AuthConfig.load_config(None, dict(config)).resolve_authconfig(name)
    except DockerException:  # a credential helper that does not work: the registry will say what is missing
        return None
    return None if not found else {k.lower(): str(v) for k, v in found.items() if v}
