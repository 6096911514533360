"""A GPU pod: a machine somebody rents by the hour. What the user asks (spec), where it is, and its life cycle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType

from pydantic import BaseModel, ConfigDict, Field

from engine.model.errors import IllegalTransition
from engine.model.registries import ImagePull
from engine.model.storage import Mount, MountedObject

WORKSPACE = "/workspace"
"""Where the persistent volume is, in the container and on a machine of its own."""

SSH_PORT = 22

PUBLISHED_PORTS = range(20_000, 30_000)
"""Ports of Docker hosts that pods are published at: below those that systems give out by themselves."""


class PodPhase(StrEnum):
    """Place of a pod in its life; the API calls it `status`."""

    PROVISIONING = "provisioning"  # accepted; it never ran
    RUNNING = "running"
    RESTARTING = "restarting"  # its machine is made anew; volume and address stay
    STOPPING = "stopping"
    STOPPED = "stopped"  # no machine; volume and address are kept
    STARTING = "starting"
    FAILED = "failed"  # with reason: no capacity, the image cannot be pulled, operations do not get on
    TEARDOWN = "teardown"
    TERMINATED = "terminated"


P = PodPhase
TRANSITIONS: Mapping[PodPhase, frozenset[PodPhase]] = {
    P.PROVISIONING: frozenset({P.RUNNING, P.STOPPING, P.FAILED, P.TEARDOWN}),
    P.RUNNING: frozenset({P.RESTARTING, P.STOPPING, P.FAILED, P.TEARDOWN}),
    P.RESTARTING: frozenset({P.RUNNING, P.STOPPING, P.FAILED, P.TEARDOWN}),
    P.STOPPING: frozenset({P.STOPPED, P.STARTING, P.FAILED, P.TEARDOWN}),
    P.STOPPED: frozenset({P.STARTING, P.TEARDOWN}),
    P.STARTING: frozenset({P.RUNNING, P.STOPPING, P.FAILED, P.TEARDOWN}),
    P.FAILED: frozenset({P.STARTING, P.STOPPING, P.TEARDOWN}),
    P.TEARDOWN: frozenset({P.TERMINATED}),
    P.TERMINATED: frozenset(),
}


def advance(current: PodPhase, to: PodPhase) -> PodPhase:
    """The only way a phase changes.

    Raises:
        IllegalTransition: `to` may not follow `current`. Staying where one is is always legal.
    """
    if to is current or to in TRANSITIONS[current]:
        return to
    raise IllegalTransition(f"a pod cannot go from {current} to {to}", current=current, to=to)


class PodSpec(BaseModel):
    """What the user asked for; it never changes. Environment values are sealed in the row and not here.

    Attributes:
        gpu_type: an id of the table of pod types, "NVIDIA H100 80GB HBM3".
        container_disk_gb: room for what the container writes outside its volume; gone with a stop.
        volume_gb: size of the persistent volume at `/workspace`.
        ports: TCP ports of the container to publish beside SSH's.
        ssh_public_key: one line of an `authorized_keys` file; "": nobody logs in.
        region: where it has to be; "": anywhere.
        mounts: stored objects, by id, that the container finds as files.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    gpu_type: str
    image: str
    gpu_count: int = Field(1, ge=1, le=8)
    container_disk_gb: int = Field(20, ge=1, le=4096)
    volume_gb: int = Field(20, ge=1, le=16384)
    ports: tuple[int, ...] = ()
    ssh_public_key: str = ""
    region: str = ""
    mounts: tuple[Mount, ...] = ()


class Target(StrEnum):
    """What a pod runs on."""

    DOCKER = "docker"
    DIGITALOCEAN = "digitalocean"


@dataclass(frozen=True)
class Place:
    """Where a pod is, for its whole life: its volume cannot move.

    Attributes:
        host: name of the Docker host, "" for a Droplet.
        pool: GPU pool of that host; the Droplet's size for a Droplet.
        region: the host's or the Droplet's.
    """

    target: Target
    host: str
    pool: str
    region: str


@dataclass(frozen=True)
class Offer:
    """A place that has room for a pod at this moment, and the GPUs it would have there."""

    place: Place
    devices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Room:
    """Where a pod could be: offers, best first, and why other places are none, in sentences."""

    offers: tuple[Offer, ...] = ()
    passed_over: tuple[str, ...] = ()


@dataclass(frozen=True)
class Taken:
    """What is placed on Docker hosts already.

    Attributes:
        used: (host, pool) → how much of it; devices: host → GPUs that somebody has.
    """

    used: Mapping[tuple[str, str], int] = field(default_factory=lambda: MappingProxyType({}))
    devices: Mapping[str, frozenset[str]] = field(default_factory=lambda: MappingProxyType({}))


FindRoom = Callable[[PodSpec, Place | None, Taken], Room]
"""From what a pod asks for, where it has to be (None: anywhere) and what is placed already to where it could be."""


@dataclass(frozen=True)
class PodMachine:
    """What the stack says runs.

    Attributes:
        id: the container's or Droplet's.
        address: where it is reached.
        ports: port inside → port at `address`.
    """

    id: str
    address: str
    ports: Mapping[int, int] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class ContainerState:
    """What a Docker host says of a pod's container.

    Attributes:
        is_there: False: nobody has heard of it.
        status: Docker's word: `running`, `restarting`, `exited`, …
        restarts: how often it ended by itself and was started again.
        runs_seconds: since its last start.
        last_lines: of its output, where it is not steady.
    """

    is_there: bool
    status: str = ""
    exit_code: int = 0
    restarts: int = 0
    runs_seconds: float = 0.0
    last_lines: str = ""


@dataclass(frozen=True)
class PodWorkload:
    """One pod as input of its stack.

    Attributes:
        devices: the GPUs it has to itself on its host; empty for a Droplet.
        env: environment of the container, opened.
        revision: raised by a restart: the machine is made anew.
        is_running: whether it has a machine now; its volume and address it has either way.
        ports: published before, to be published at the same numbers again.
        mounts: stored objects that the container finds as files.
        pull: as whom the image is fetched.
    """

    pod_id: str
    org_id: str
    spec: PodSpec
    place: Place
    devices: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    generation: int
    revision: int
    is_running: bool
    installation_id: str
    ports: Mapping[int, int] = field(default_factory=lambda: MappingProxyType({}))
    mounts: tuple[MountedObject, ...] = field(default=(), repr=False)
    pull: ImagePull = field(default_factory=ImagePull)
