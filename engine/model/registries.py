"""Registries that images come from: which one a reference names, who we are to it, which ones an operator allows.

Asks no registry. Taking references apart for a Docker daemon is `engine/deploy/providers/docker/registries.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from engine.model.errors import InvalidSpec

HUB = "docker.io"
"""Where references that name no registry point to."""

_HUB_NAMES = frozenset({HUB, "index.docker.io", "registry-1.docker.io"})
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?")


class LocalImages(StrEnum):
    """Who may use images that a Docker host has and no registry was asked for.

    An image pulled with one organisation's credentials stays on the host: whoever may use it without asking needs none.
    """

    TRUSTED = "trusted"  # organisations without a credit limit: those that operators made for themselves
    ALL = "all"
    NONE = "none"

    def allows(self, *, is_trusted: bool) -> bool:
        """Whether an organisation's images are taken as the host has them; else their registry is asked each time."""
        return self is LocalImages.ALL or (self is LocalImages.TRUSTED and is_trusted)


@dataclass(frozen=True)
class RegistryLogin:
    """Who we are to one registry."""

    registry: str
    username: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class ImagePull:
    """How an image is fetched.

    Attributes:
        login: None: as nobody. The machine's own credentials are never used.
        always: its registry is asked even where the machine has an image of that name.
    """

    login: RegistryLogin | None = None
    always: bool = False


NOT_ALLOWED = (
    "unauthorized:", "401 unauthorized", "no basic auth credentials", "pull access denied", "denied: denied",
    "requested access to the resource is denied",
)  # fmt: skip
"""Words of registries that do not know us, or let us have nothing."""


def pull_hint(words: str) -> str:
    """What the owner of an image can do about a registry's refusal; "" where it is something else."""
    if not any(sign in words.lower() for sign in NOT_ALLOWED):
        return ""
    return "; say who may pull it: registryAuth in the request, or PUT /v1/registries/{registry}"


def registry_of(image: str) -> str:
    """The registry a reference names, `docker.io` if none."""
    first, slash, _rest = image.partition("/")
    is_host = "." in first or ":" in first or first == "localhost" or first != first.lower()  # as Docker itself does
    return canonical(first) if slash and is_host else HUB


def canonical(host: str) -> str:
    """One spelling for each registry."""
    lowered = host.lower()
    return HUB if lowered in _HUB_NAMES else lowered


def checked_registry(host: str) -> str:
    """A registry somebody named, in its one spelling.

    Raises:
        InvalidSpec: it is no host, as images' names begin with one.
    """
    known = canonical(host.strip())
    if len(known) > 255 or not _HOST.fullmatch(known):
        raise InvalidSpec(
            f"{host!r} is not a registry: name its host, and its port where images' names have one, like ghcr.io or "
            "registry.example.com:5000",
            field="registry",
        )
    return known


def full_name(image: str) -> str:
    """A reference with its registry, and `library/` where Docker Hub means it; without tag and digest."""
    registry = registry_of(image)
    name = image.partition("@")[0]
    head, slash, last = name.rpartition("/")
    name = f"{head}{slash}{last.partition(':')[0]}"
    first, _, rest = name.partition("/")
    path = rest if rest and (canonical(first) == registry) else name
    return f"{registry}/{path if '/' in path or registry != HUB else f'library/{path}'}"


def check_allowed(image: str, allowed: Iterable[str]) -> None:
    """Refuse an image of a registry that the operator does not allow.

    Args:
        allowed: registries or the beginnings of names (`ghcr.io/acme`); none: everything is.

    Raises:
        InvalidSpec: names the allowed ones.
    """
    prefixes = list(allowed)
    name = full_name(image)
    if not prefixes or any(name == prefix or name.startswith(f"{prefix}/") for prefix in prefixes):
        return
    raise InvalidSpec(
        f"images of {registry_of(image)} are not allowed here ({name}); allowed: {', '.join(prefixes)}",
        field="dockerImage", allowed=prefixes,
    )  # fmt: skip


def parse_allowed(text: str) -> tuple[str, ...]:
    """The setting `image_registries`: registries or the beginnings of names, comma-separated.

    Raises:
        InvalidSpec: one of them is none.
    """
    found = []
    for part in (p.strip().strip("/").lower() for p in text.split(",")):
        if part:
            host, slash, path = part.partition("/")
            found.append(f"{checked_registry(host)}{slash}{path}")
    return tuple(found)


def login_for(image: str, given: RegistryLogin | None, stored: Mapping[str, RegistryLogin]) -> RegistryLogin | None:
    """Who an image is fetched as: what came with it, else what its organisation stored for its registry."""
    registry = registry_of(image)
    if given is not None and given.registry == registry:
        return given
    return stored.get(registry)
