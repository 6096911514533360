"""Docker hosts of an installation, as its operator declares them. Not what runs on them: `store/placements.py`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from engine.model.errors import InvalidSpec

CPU_POOL = "CPU"
"""Workers without a GPU, for development: only hosts that declare it have it."""

AMD_NODES = "/dev/dri/"
"""How the ids of AMD's GPUs begin: they are the nodes that containers get (`/dev/dri/renderD128`)."""

BRIDGES = "sy-+"
"""The networks of tenants' containers on a host, as packet filters name interfaces that begin alike."""

_SCHEMES = ("unix://", "tcp://", "ssh://", "http://")


class DockerHost(BaseModel):
    """One machine that runs containers of handlers and pods.

    Attributes:
        name: part of resource names; stays the same while the machine does.
        host: where its Docker daemon listens: `unix://`, `tcp://` or `ssh://`.
        cert_path: folder with ca.pem, cert.pem, key.pem for `tcp://` with TLS; "" for none.
        address: where the control plane reaches the ports its containers publish.
        pools: pool id → how many workers or GPUs of it there are, or the ids of its GPUs as the driver names them
            (AMD's: their nodes, `/dev/dri/renderD128`).
            With counts, GPUs are numbered from 0 in the order of the pools. `auto`: its driver is asked.
        region: where the machine stands, as users name it.
        worker_memory_mb, worker_cpus: what one worker gets at most, and a pod for each of its GPUs; 0: all there is.
            Of memory null is an equal share of what the host has.
        guard: rules of its packet filter keep containers from the host and from its cloud's metadata
            (`reconcilers/handlers/guard.py`); null: where its address is not of the machine itself.
        disk_quota: its storage driver enforces the size of a container's disk (overlay2 on xfs with pquota, zfs).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$")
    host: str
    address: str = "127.0.0.1"
    pools: Mapping[str, int | tuple[str, ...]]
    reads_gpus: bool = False
    region: str = "local"
    cert_path: str = ""
    worker_memory_mb: int | None = Field(None, ge=0)
    worker_cpus: float = Field(0, ge=0)
    disk_quota: bool = False
    guard: bool | None = None

    @model_validator(mode="before")
    @classmethod
    def _auto(cls, value: Any) -> Any:
        if isinstance(value, dict) and value.get("pools") == "auto":
            return {**value, "pools": {}, "reads_gpus": True}
        return value

    @field_validator("host")
    @classmethod
    def _known_scheme(cls, value: str) -> str:
        if not value.startswith(_SCHEMES):
            raise ValueError(f"a Docker host is a URL that begins with one of {', '.join(_SCHEMES)}, not {value!r}")
        return value

    @model_validator(mode="after")
    def _counts(self) -> DockerHost:
        if not self.pools and not self.reads_gpus:
            raise ValueError('pools: name one, like {"CPU": 4}, or "auto" to have its GPUs read from the driver')
        if wrong := [pool for pool, had in self.pools.items() if (had if isinstance(had, int) else len(had)) < 1]:
            raise ValueError(f"a pool holds one worker or more: {', '.join(wrong)}")
        if not isinstance(self.pools.get(CPU_POOL, 1), int):
            raise ValueError(f"{CPU_POOL} has no GPUs to name: give a number")
        return self

    @property
    def is_guarded(self) -> bool:
        """Whether its packet filter is ours to add to. A machine of one's own, reached at loopback, is left alone."""
        if self.guard is not None:
            return self.guard
        try:
            return not ip_address(self.address).is_loopback
        except ValueError:
            return self.address != "localhost"

    def capacity(self, pool: str) -> int:
        """How many GPUs (in the CPU pool: workers) of a pool it has; 0 for a pool it does not have."""
        had = self.pools.get(pool, 0)
        return had if isinstance(had, int) else len(had)

    def devices(self, pool: str) -> tuple[str, ...]:
        """The ids of a pool's GPUs, [capacity]; empty for the CPU pool."""
        if pool == CPU_POOL or pool not in self.pools:
            return ()
        named = self.pools[pool]
        if not isinstance(named, int):
            return named
        first = 0
        for other, had in self.pools.items():
            if other == pool:
                break
            first += had if isinstance(had, int) and other != CPU_POOL else 0
        return tuple(str(first + index) for index in range(named))


@dataclass(frozen=True)
class Gpu:
    """One GPU, as its driver names it."""

    uuid: str
    name: str


@dataclass(frozen=True)
class HostFacts:
    """What a host was found to have."""

    memory_mb: int
    gpus: tuple[Gpu, ...] = ()


SHARED_MEMORY = 0.95
"""How much of a host's memory its workers share; the rest is the system's."""


def with_facts(host: DockerHost, facts: HostFacts, pool_of: Callable[[str], str | None]) -> DockerHost:
    """The host with what it left to be read.

    Args:
        pool_of: from a GPU's name to its pool; None: there is none for it.
    """
    pools: dict[str, int | tuple[str, ...]] = dict(host.pools)
    for gpu in facts.gpus if host.reads_gpus else ():
        if pool := pool_of(gpu.name):
            pools[pool] = (*had, gpu.uuid) if isinstance(had := pools.get(pool, ()), tuple) else (gpu.uuid,)
    found = host.model_copy(update={"pools": pools})
    if host.worker_memory_mb is not None or not facts.memory_mb:
        return found
    places = sum(found.capacity(pool) for pool in pools)
    share = int(facts.memory_mb * SHARED_MEMORY / places) if places else 0
    return found.model_copy(update={"worker_memory_mb": share})


def bridge_name(*owner: str) -> str:
    """The interface of a network on a host: the same for the same owner, and one that `BRIDGES` means."""
    return BRIDGES.rstrip("+") + hashlib.sha256("\0".join(owner).encode()).hexdigest()[:10]


def parse_hosts(text: str) -> tuple[DockerHost, ...]:
    """The hosts of the setting `docker_hosts`, a JSON list; "" is none.

    Raises:
        InvalidSpec: not a list of hosts, or two of one name.
    """
    if not text.strip():
        return ()
    try:
        hosts = tuple(DockerHost.model_validate(entry) for entry in _list(text))
    except ValidationError as err:
        reasons = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'entry'}: {e['msg']}" for e in err.errors())
        raise InvalidSpec(f"docker_hosts: {reasons}") from None
    names = [host.name for host in hosts]
    if len(names) != len(set(names)):
        raise InvalidSpec(f"docker_hosts: every host needs a name of its own; given: {', '.join(names)}")
    return hosts


def host_named(hosts: Sequence[DockerHost], name: str) -> DockerHost | None:
    """The host of that name; None when the operator took it away."""
    return next((host for host in hosts if host.name == name), None)


def _list(text: str) -> list[object]:
    try:
        entries = json.loads(text)
    except ValueError as err:
        raise InvalidSpec(f"docker_hosts is a JSON list of hosts: {err}") from err
    if not isinstance(entries, list):
        raise InvalidSpec('docker_hosts is a JSON list: [{"name": "local", "host": "unix:///var/run/docker.sock", …}]')
    return entries
