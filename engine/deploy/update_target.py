"""Whose update it is: the project, the stack and its configuration, as values.

Not which resources take part (`targets.py`). Source: pulumi `pkg/resource/deploy/target.go`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from engine.deploy.property import PropertyMap, Secret

_DYNAMIC_PACKAGES = frozenset({"pulumi-python", "pulumi-nodejs"})


@dataclass(frozen=True)
class UpdateTarget:
    """Whose update this is.

    Attributes:
        config: full key (`project:name`) → plain text, secrets already decrypted.
        secret_keys: the keys of `config` that are secret.
        directory: where relative paths of assets start: the program's folder.
        root: the project's folder, which positions in the program are relative to.
    """

    project: str
    stack: str
    config: Mapping[str, str] = field(default_factory=dict)
    secret_keys: frozenset[str] = frozenset()
    organization: str = "organization"
    directory: Path = Path()
    root: Path = Path("/")

    def denies_default_provider(self, package: str) -> bool:
        """Whether `pulumi:disable-default-providers` names the package, or all with `*`."""
        denied = json.loads(self.config.get("pulumi:disable-default-providers", "[]"))
        return package != "pulumi" and ("*" in denied or package in denied)

    def package_config(self, package: str) -> PropertyMap:
        """The inputs of a package's default provider: its keys of the configuration.

        The SDKs' dynamic providers get the whole of it, by full key.
        """
        prefix = "" if package in _DYNAMIC_PACKAGES else f"{package}:"
        return {
            key.removeprefix(prefix): Secret(value) if key in self.secret_keys else value
            for key, value in self.config.items()
            if key.startswith(prefix)
        }
