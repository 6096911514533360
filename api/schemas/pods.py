"""Pods on the wire, in Hypereal's camelCase: what clients send and what they get. Not the stored specification."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.alias_generators import to_camel

from api.schemas import registries
from api.schemas.mounts import DESCRIPTION, MOST_MOUNTS, MountView, Wish
from engine.model.deployment import Condition
from engine.model.pod import SSH_PORT, WORKSPACE, PodPhase
from engine.model.registries import RegistryLogin
from engine.store import pods
from engine.store.pod_tables import PodRow

MAX_ENV_BYTES = 32 * 1024
"""A Droplet's user-data, which carries it, holds 64 KiB in all."""

KEY_TYPES = (
    "ssh-ed25519", "ssh-rsa", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com", "sk-ecdsa-sha2-nistp256@openssh.com",
)  # fmt: skip
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class _Wire(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", str_strip_whitespace=True
    )


def _ports(value: Any) -> Any:
    """A list, or RunPod's text `8888/http,22/tcp`."""
    if not isinstance(value, str):
        return value
    return [part.strip().partition("/")[0] for part in value.split(",") if part.strip()]


def _variables(value: Mapping[str, str]) -> Mapping[str, str]:
    for name, text in value.items():
        if not _VARIABLE.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of an environment variable: letters, digits and _ only")
        if "\0" in text:
            raise ValueError(f"the value of {name} holds a NUL, which no environment can")
    size = sum(len(name.encode()) + len(text.encode()) for name, text in value.items())
    if size > MAX_ENV_BYTES:
        raise ValueError(f"the environment has {size} bytes; {MAX_ENV_BYTES} are possible: put files in {WORKSPACE}")
    return value


def _public_key(value: str) -> str:
    """One line of an `authorized_keys` file, without options."""
    if not value:
        return value
    words = value.split(maxsplit=2)
    valid = f"it reads like `ssh-ed25519 AAAA… you@host` (the .pub file); types: {', '.join(KEY_TYPES)}"
    if "\n" in value or "\r" in value or len(words) < 2 or words[0] not in KEY_TYPES:
        raise ValueError(f"this is not an SSH public key: {valid}")
    try:
        blob = base64.b64decode(words[1], validate=True)
    except binascii.Error:
        raise ValueError(f"this SSH public key is damaged (its base64 part cannot be read): {valid}") from None
    named = blob[4 : 4 + int.from_bytes(blob[:4], "big")]
    if named != words[0].encode() or len(blob) <= 4 + len(named):
        raise ValueError(f"this SSH public key is damaged (it does not hold a key of type {words[0]}): {valid}")
    return value


Ports = Annotated[list[Annotated[int, Field(ge=1, le=65535)]], BeforeValidator(_ports), Field(max_length=16)]


class PodCreate(_Wire):
    """Body of `POST /v1/gpu/pods`."""

    name: str = Field(min_length=1, max_length=100, examples=["training-rig-01"])
    gpu_type_id: str = Field(examples=["NVIDIA H100 80GB HBM3"], description="an id of GET /v1/gpu/pods/types")
    docker_image: str = Field(min_length=1, max_length=500)
    gpu_count: int = Field(1, ge=1, le=8)
    container_disk_gb: int = Field(20, ge=1, le=4096, description="room outside the volume; gone with a stop")
    volume_gb: int = Field(20, ge=1, le=16384, description=f"persistent volume at {WORKSPACE}")
    env: Annotated[dict[str, str], AfterValidator(_variables)] = Field(default_factory=dict)
    ports: Ports = Field(default_factory=list, description="TCP ports to publish beside SSH's")
    ssh_public_key: Annotated[str, Field(max_length=16_384), AfterValidator(_public_key)] = ""
    region: str = Field("", description="where it has to be; empty: anywhere")
    mounts: list[Wish] = Field(default_factory=list, max_length=MOST_MOUNTS, description=DESCRIPTION)
    registry_auth: registries.RegistryAuth | None = Field(None, description=registries.DESCRIPTION)


class PodAvailability(_Wire):
    """Whether a type can be had at one target."""

    target: str
    region: str
    available: bool
    reason: str


class PodTypeView(_Wire):
    """A GPU type, what it costs and where it can be had at this moment (one GPU)."""

    id: str
    display_name: str
    vram_gb: int
    price_per_hour: float | None
    available: bool
    availability: list[PodAvailability]
    gpu_counts: list[int]


class PodTypes(_Wire):
    """Answer of `GET /v1/gpu/pods/types`."""

    data: list[PodTypeView]


class PodView(_Wire):
    """A pod as its owner sees it. Of the environment only the names are shown."""

    id: str
    name: str
    status: PodPhase
    status_reason: str
    conditions: list[Condition]
    gpu_type_id: str
    gpu_count: int
    docker_image: str
    container_disk_gb: int
    volume_gb: int
    volume_mount_path: str
    env: list[str]
    ports: list[int]
    mounts: list[MountView]
    registry_auth: registries.RegistryAuthView | None
    region: str | None
    target: str | None
    public_ip: str | None
    port_mappings: dict[str, int]
    ssh_command: str | None
    price_per_hour: float
    volume_price_per_hour: float
    cost_usd: str
    generation: int
    observed_generation: int
    created_at: datetime
    updated_at: datetime


class PodPage(_Wire):
    """A page, newest first; ask for the next with `after` = the last one's id."""

    data: list[PodView]
    has_more: bool


def status_of(row: PodRow) -> PodPhase:
    """The status a user sees: an accepted wish shows at once, before the reconciler has moved the phase."""
    phase = PodPhase(row.phase)
    if row.delete_requested_at is not None and phase is not PodPhase.TERMINATED:
        return PodPhase.TEARDOWN
    wants = pods.wants_machine(row)
    if phase is PodPhase.RUNNING and not wants:
        return PodPhase.STOPPING
    if phase is PodPhase.RUNNING and row.observed_generation < row.generation:
        return PodPhase.RESTARTING
    if phase in (PodPhase.STOPPED, PodPhase.FAILED) and wants:
        return PodPhase.STARTING
    return phase


def pod_view(row: PodRow, *, env: list[str], login: RegistryLogin | None, cost_usd: Decimal) -> PodView:
    """A row as its owner sees it.

    Args:
        env: names of its environment's variables.
        login: as whom its own image is pulled.
        cost_usd: what it cost so far.
    """
    spec, ports = pods.spec_of(row), {inside: outside for inside, outside in row.ports.items()}
    runs = bool(row.machine_id) and status_of(row) is PodPhase.RUNNING
    return PodView(
        id=row.id,
        name=row.name,
        status=status_of(row),
        status_reason=row.suspended_reason or row.phase_reason,
        conditions=[Condition.model_validate(c) for c in row.conditions],
        gpu_type_id=spec.gpu_type,
        gpu_count=spec.gpu_count,
        docker_image=spec.image,
        container_disk_gb=spec.container_disk_gb,
        volume_gb=spec.volume_gb,
        volume_mount_path=WORKSPACE,
        env=env,
        ports=list(spec.ports),
        mounts=[MountView(object=mount.object, path=mount.path) for mount in spec.mounts],
        registry_auth=registries.auth_view(login),
        region=row.region or spec.region or None,
        target=row.target or None,
        public_ip=row.address or None,
        port_mappings=ports if runs else {},
        ssh_command=_ssh_command(row) if runs and spec.ssh_public_key else None,
        price_per_hour=float(row.hourly_rate_usd),
        volume_price_per_hour=float(row.volume_rate_usd),
        cost_usd=f"{cost_usd:f}",
        generation=row.generation,
        observed_generation=row.observed_generation,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _ssh_command(row: PodRow) -> str | None:
    port = row.ports.get(str(SSH_PORT))
    if port is None:
        return None
    return f"ssh root@{row.address}" + ("" if port == SSH_PORT else f" -p {port}")
