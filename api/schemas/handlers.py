"""Handler deployments on the wire, in Hypereal's camelCase: what clients send and what they get."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator
from pydantic.alias_generators import to_camel

from api.schemas import registries
from api.schemas.mounts import DESCRIPTION, MOST_MOUNTS, MountView, Wish
from engine.model.deployment import Condition
from engine.model.handler import ColdStart, HandlerPhase, HandlerSpec, WorkerPhase
from engine.model.registries import RegistryLogin
from engine.store import handlers
from engine.store.handler_tables import HandlerRow, WorkerActivityRow
from stacks import pools

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OURS = frozenset(
    {
        "RUNPOD_WEBHOOK_GET_JOB", "RUNPOD_WEBHOOK_POST_OUTPUT", "RUNPOD_WEBHOOK_POST_STREAM", "RUNPOD_WEBHOOK_PING",
        "RUNPOD_AI_API_KEY", "RUNPOD_POD_ID", "RUNPOD_ENDPOINT_ID",
    }
)  # fmt: skip
"""What every worker gets (`stacks/handler_workload.py`); the package's other settings are the user's."""
MAX_ENV_BYTES = 64 * 1024


class _Wire(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, extra="forbid", str_strip_whitespace=True
    )


def _split(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _words(value: Any) -> Any:
    return shlex.split(value) if isinstance(value, str) else value


def _ports(value: Any) -> Any:
    """A number, a list, or RunPod's text `8000/http,22/tcp`."""
    if isinstance(value, int):
        return [value]
    return [str(part).partition("/")[0] for part in _split(value)] if isinstance(value, str) else value


Pools = Annotated[list[str], BeforeValidator(_split), Field(max_length=16)]
Ports = Annotated[
    list[Annotated[int, Field(ge=1, le=65535)]], BeforeValidator(_ports), Field(min_length=1, max_length=8)
]
Command = Annotated[list[str], BeforeValidator(_words), Field(max_length=256)]
Slug = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]


def _variables(value: Mapping[str, str]) -> Mapping[str, str]:
    for name in value:
        if not _VARIABLE.fullmatch(name):
            raise ValueError(f"{name!r} is not the name of an environment variable: letters, digits and _ only")
        if name in _OURS:
            raise ValueError(f"{name} is set for every worker: leave it out")
    if sum(len(k.encode()) + len(v.encode()) for k, v in value.items()) > MAX_ENV_BYTES:
        raise ValueError(f"the environment is larger than {MAX_ENV_BYTES} bytes: put large values into storage")
    if any("\0" in text for pair in value.items() for text in pair):
        raise ValueError("an environment cannot hold NUL characters")
    return value


class HandlerPatch(_Wire):
    """Body of `PATCH /v1/deployments/{handler}`; what is left out stays as it is. `secrets` replaces all of them."""

    slug: Slug | None = None
    name: str | None = Field(None, min_length=1, max_length=100)
    docker_image: str | None = Field(None, max_length=500)
    gpu_types: Pools | None = Field(None, description="pool ids in order of preference, comma-separated or as a list")
    workers_min: int | None = Field(None, ge=0, le=64)
    workers_max: int | None = Field(None, ge=1, le=64)
    idle_timeout_seconds: int | None = Field(None, ge=1, le=86_400)
    ports: Ports | None = None
    env: dict[str, str] | None = None
    secrets: dict[str, str] | None = Field(None, description="environment that is sealed and never shown again")
    start_command: Command | None = None
    container_disk_gb: int | None = Field(None, ge=1, le=4096)
    execution_timeout_seconds: int | None = Field(None, ge=1, le=86_400)
    max_attempts: int | None = Field(None, ge=1, le=10)
    concurrency: int | None = Field(None, ge=1, le=1000)
    queue_delay_seconds: float | None = Field(None, ge=0, le=3600)
    mounts: list[Wish] | None = Field(None, max_length=MOST_MOUNTS, description=DESCRIPTION)
    registry_auth: registries.RegistryAuth | None = Field(
        None, description=f"{registries.DESCRIPTION}; null forgets what was given before"
    )

    @field_validator("env", "secrets")
    @classmethod
    def _named(cls, value: dict[str, str] | None) -> dict[str, str] | None:
        return None if value is None else dict(_variables(value))


class HandlerCreate(HandlerPatch):
    """Body of `POST /v1/deployments`. Without limits: none is kept warm, three run at most, idle ones go after 5 s."""

    slug: Slug = Field(examples=["my-flux-lora"])
    name: str = Field("", max_length=100, examples=["My Flux LoRA"])
    docker_image: str = Field(max_length=500, examples=["ghcr.io/me/flux-lora-handler:latest"])
    gpu_types: Pools = Field(examples=["ADA_48_PRO,AMPERE_80"])


def spec_values(body: HandlerPatch) -> dict[str, Any]:
    """What the body says of a `HandlerSpec`, by its field names; what was left out is absent.

    So are mounts, which name objects that are to be found first, and credentials, which are no part of it.
    """
    given = body.model_dump(exclude={"secrets", "mounts", "registry_auth"}, exclude_none=True)
    renamed = {"docker_image": "image", "gpu_types": "pools"}
    return {renamed.get(name, name): value for name, value in given.items()}


class WorkerView(_Wire):
    """One worker of a deployment."""

    name: str
    status: WorkerPhase
    gpu_type: str
    target: str
    host: str
    generation: int
    jobs_in_flight: int
    protocol: str
    reason: str
    created_at: datetime


class ColdStartView(_Wire):
    """How long a worker took until it could do jobs, in five phases; milliseconds, null where it is not known."""

    worker: str
    at: datetime
    queue_ms: int
    provision_ms: int | None
    pull_ms: int | None
    boot_ms: int | None
    handler_ms: int | None
    total_ms: int | None


class HandlerView(_Wire):
    """A handler deployment as its owner sees it. Of secrets only the names are shown."""

    id: str
    slug: str
    name: str
    status: HandlerPhase
    status_reason: str
    conditions: list[Condition]
    docker_image: str
    gpu_types: list[str]
    workers_min: int
    workers_max: int
    idle_timeout_seconds: int
    ports: list[int]
    env: dict[str, str]
    secrets: list[str]
    start_command: list[str]
    container_disk_gb: int
    execution_timeout_seconds: int
    max_attempts: int
    concurrency: int
    queue_delay_seconds: float
    mounts: list[MountView]
    registry_auth: registries.RegistryAuthView | None
    workers: list[WorkerView]
    workers_ready: int
    cold_starts: list[ColdStartView]
    usd_per_second: dict[str, str]
    run_url: str
    runsync_url: str
    generation: int
    observed_generation: int
    created_at: datetime
    updated_at: datetime


class HandlerPage(_Wire):
    """A page, newest first; ask for the next with `after` = the last one's id."""

    data: list[HandlerView]
    has_more: bool


def status_of(row: HandlerRow) -> HandlerPhase:
    """The status a user sees: an accepted edit shows at once, before the reconciler has moved the phase."""
    phase = handlers.phase_of(row)
    if row.delete_requested_at is not None and phase is not HandlerPhase.INACTIVE:
        return HandlerPhase.TEARDOWN
    if row.observed_generation and row.observed_generation < row.generation and phase is not HandlerPhase.INACTIVE:
        return HandlerPhase.SCALING
    return phase


def handler_view(
    row: HandlerRow,
    public_url: str,
    *,
    secret_names: list[str],
    login: RegistryLogin | None,
    activity: Mapping[str, WorkerActivityRow],
    prices: Mapping[str, Decimal],
) -> HandlerView:
    """A row as its owner sees it.

    Args:
        login: as whom its own image is pulled.
        activity: worker → what the dispatcher recorded; {} in lists.
        prices: sku → the operator's price.
    """
    spec: HandlerSpec = handlers.spec_of(row)
    workers = handlers.workers_of(row)
    costs = {pool: pools.usd_per_second(pool, prices) for pool in spec.pools}
    shown = spec.model_dump(exclude={"pools", "image", "slug", "name"})
    return HandlerView(
        id=row.id,
        slug=row.slug,
        name=row.name,
        status=status_of(row),
        status_reason=row.suspended_reason or row.phase_reason,
        conditions=[Condition.model_validate(c) for c in row.conditions],
        docker_image=spec.image,
        gpu_types=list(spec.pools),
        secrets=sorted(secret_names),
        registry_auth=registries.auth_view(login),
        workers=[
            WorkerView(
                name=w.name, status=w.phase, gpu_type=w.pool, target=w.target, host=w.host, generation=w.generation,
                jobs_in_flight=seen.in_flight if (seen := activity.get(w.name)) else 0,
                protocol=seen.protocol if seen else "", reason=w.reason, created_at=w.created_at,
            )
            for w in workers
        ],
        workers_ready=sum(w.phase is WorkerPhase.READY for w in workers),
        cold_starts=[ColdStartView(**ColdStart.model_validate(c).model_dump()) for c in row.cold_starts],
        usd_per_second={pool: f"{cost:f}" for pool, cost in costs.items() if cost is not None},
        run_url=f"{public_url}/v1/gpu/run/{row.slug}",
        runsync_url=f"{public_url}/v1/gpu/runsync/{row.slug}",
        generation=row.generation,
        observed_generation=row.observed_generation,
        created_at=row.created_at,
        updated_at=row.updated_at,
        **{name: list(value) if isinstance(value, tuple) else value for name, value in shown.items()},
    )  # fmt: skip
