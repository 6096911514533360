"""The provider resource's own inputs: checking, comparing, and what they mean. Pure but for files that they name.

What came from the environment is never written into inputs: state must not hold credentials, and the next process may
have others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from engine.deploy.property import UNKNOWN, PropertyMap, PropertyValue, Secret, contains_secret, strip_secrets
from engine.deploy.provider import CheckFailure, CheckResult, DiffKind, DiffResult, PropertyDiff
from engine.deploy.providers.docker.contexts import context_settings
from engine.deploy.providers.docker.hosts import DEFAULT_ADDRESS, SCHEMES, HostSettings
from engine.deploy.providers.docker.registries import Credentials, Registries, config_file_path

KNOWN_INPUTS = frozenset(
    {
        "caMaterial", "certMaterial", "certPath", "context", "disableDockerDaemonCheck", "host", "keyMaterial",
        "registryAuth", "sshOpts",
    }
)  # fmt: skip
SECRET_INPUTS = frozenset({"keyMaterial"})
REGISTRY_FIELDS = frozenset({"address", "authDisabled", "configFile", "configFileContent", "password", "username"})
ENGINE_INPUTS = frozenset({"version", "pluginDownloadURL", "parameterization"})
"""Inputs of every provider resource that belong to the engine."""


def check_config(news: PropertyMap) -> CheckResult:
    """Values as text (lists as JSON), keys of the daemon secret, `__internal` as the official provider leaves it."""
    inputs: PropertyMap = {"__internal": {}}
    failures = []
    for name, value in news.items():
        if name.startswith("__") or value is None:
            continue
        if name not in KNOWN_INPUTS | ENGINE_INPUTS:
            known = ", ".join(sorted(KNOWN_INPUTS))
            failures.append(CheckFailure(name, f"{name!r} is not a setting of this provider; settings: {known}"))
            continue
        plain = strip_secrets(value)
        failures += [CheckFailure(name, fault) for fault in _faults(name, plain)]
        text = plain if isinstance(plain, str) or plain is UNKNOWN else json.dumps(plain, separators=(",", ":"))
        secret = contains_secret(value) or name in SECRET_INPUTS or _has_password(name, plain)
        inputs[name] = Secret(text) if secret else text
    return CheckResult(inputs, tuple(failures))


def _faults(name: str, value: PropertyValue) -> list[str]:
    if value is UNKNOWN:
        return []
    if name == "host" and not str(value).startswith(SCHEMES):
        return [f"host {value!r} must begin with {', '.join(SCHEMES[:-1])} or {SCHEMES[-1]}"]
    if name in ("registryAuth", "sshOpts") and parsed_list(value) is None:
        return [f"{name} must be a list"]
    if name == "registryAuth":
        return [fault for entry in parsed_list(value) or () for fault in _registry_faults(entry)]
    return []


def _registry_faults(entry: PropertyValue) -> list[str]:
    if entry is UNKNOWN:
        return []
    if not isinstance(entry, dict) or not entry.get("address"):
        return ["every registryAuth needs an address, like registry.example.org"]
    extra = sorted(k for k in entry.keys() - REGISTRY_FIELDS if not k.startswith("__"))
    return [f"registryAuth knows no {key!r}: {', '.join(sorted(REGISTRY_FIELDS))}" for key in extra]


def _has_password(name: str, value: PropertyValue) -> bool:
    if name != "registryAuth":
        return False
    entries = parsed_list(value) or []
    return any(isinstance(e, dict) and (e.get("password") or e.get("configFileContent")) for e in entries)


def parsed_list(value: PropertyValue) -> list[PropertyValue] | None:
    """A list, given as such or as JSON text (the wire form of a provider's settings); None if it is neither."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    return value if isinstance(value, list) else None


def diff_config(olds: PropertyMap, news: PropertyMap) -> DiffResult:
    """No setting replaces the provider: its resources stay where they are."""
    changed: dict[str, PropertyDiff] = {}
    for name in sorted(KNOWN_INPUTS):
        old, new = strip_secrets(olds.get(name)), strip_secrets(news.get(name))
        if old != new:
            kind = DiffKind.ADD if old is None else DiffKind.DELETE if new is None else DiffKind.UPDATE
            changed[name] = PropertyDiff(kind)
    return DiffResult(changes=bool(changed), changed_keys=tuple(changed), detailed_diff=changed)


def host_settings(inputs: PropertyMap, environment: Mapping[str, str]) -> HostSettings:
    """The daemon to talk to: of the inputs, else of the environment, else this machine's.

    Raises:
        ValueError: the Docker context is not to be found.
    """
    given = {k: v for k, v in strip_secrets(inputs).items() if v}
    home = Path(environment.get("HOME") or Path.home())
    context = given.get("context") or environment.get("DOCKER_CONTEXT")
    if context and context != "default":
        return context_settings(context, Path(environment.get("DOCKER_CONFIG") or home / ".docker"))
    options = parsed_list(given.get("sshOpts") or "") or environment.get("DOCKER_SSH_OPTS", "").split()
    certificates = given.get("certPath")
    if not certificates and environment.get("DOCKER_TLS_VERIFY"):
        certificates = environment.get("DOCKER_CERT_PATH") or str(home / ".docker")
    return HostSettings(
        address=str(given.get("host") or environment.get("DOCKER_HOST") or DEFAULT_ADDRESS),
        ca=str(given.get("caMaterial") or environment.get("DOCKER_CA_MATERIAL") or ""),
        certificate=str(given.get("certMaterial") or environment.get("DOCKER_CERT_MATERIAL") or ""),
        key=str(given.get("keyMaterial") or environment.get("DOCKER_KEY_MATERIAL") or ""),
        certificate_folder=str(certificates or ""),
        ssh_options=tuple(str(o) for o in options),
    )


def registries(inputs: PropertyMap, environment: Mapping[str, str]) -> Registries:
    """Who we are to registries: of the inputs, else of the machine's Docker configuration."""
    default_file = config_file_path(environment)
    known: dict[str, Credentials] = {}
    for entry in parsed_list(strip_secrets(inputs.get("registryAuth")) or "") or []:
        file = Path(str(entry.get("configFile") or default_file)).expanduser()
        known[str(entry["address"])] = Credentials(
            username=str(entry.get("username") or environment.get("DOCKER_REGISTRY_USER") or ""),
            password=str(entry.get("password") or environment.get("DOCKER_REGISTRY_PASS") or ""),
            config_text=str(entry.get("configFileContent") or ""),
            config_file=file,
            disabled=entry.get("authDisabled") in (True, "true"),
        )
    return Registries(known, default_file)
