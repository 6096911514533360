"""Deployments on the wire: what clients send and what they get. Not the stored specification."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from engine.model.deployment import Condition, DeploymentSpec, Phase, ReplicaPhase, Scaling
from engine.model.errors import InvalidSpec
from engine.store import deployments
from engine.store.tables import DeploymentRow
from stacks import catalog
from stacks.vllm_options import MOST_ARGUMENTS

MAX_REPLICAS = 64

_VLLM_ARGS = "further options of `vllm serve`, in the place of the preset's; none that reach files, code or the network"


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)


class ScalingBounds(_Request):
    """`scaling` of `POST /deployments`."""

    min_replicas: int = Field(1, ge=0, le=MAX_REPLICAS)
    max_replicas: int | None = Field(None, ge=1, le=MAX_REPLICAS, description="left out, as many as there are to begin")
    scale_to_zero: bool | None = Field(None, description="left out, what the preset says, or false")
    idle_timeout_seconds: int = Field(300, ge=5)
    target_queue_depth: int | None = Field(None, ge=1, le=10_000)
    target_latency_ms: int | None = Field(None, ge=1, le=3_600_000)


class DeploymentCreate(_Request):
    """Body of `POST /deployments`."""

    name: str = Field(min_length=1, max_length=100, examples=["prod-llama-70b"])
    model_id: str = Field(
        examples=["llama-3.3-70b-instruct"], description="see GET /gpu-model-configs; `byom:NAME`: own weights alone"
    )
    gpu_type: str | None = Field(
        None, examples=["h100"], description="see GET /gpu-model-configs; a preset brings its own"
    )
    region: str = Field(examples=["nyc2"], description=f"one of {', '.join(catalog.REGIONS)}")
    replicas: int = Field(1, ge=1, le=MAX_REPLICAS, description="left out, `scaling.min_replicas`, and 1 at least")
    preset: str | None = Field(None, description=f"one of {', '.join(catalog.PRESETS)}")
    scaling: ScalingBounds | None = Field(None, description="left out, as many replicas as `replicas`, always")
    vllm_args: list[str] = Field(
        [], max_length=MOST_ARGUMENTS, description=_VLLM_ARGS, examples=[["--max-num-seqs=64"]]
    )


class PresetChange(_Request):
    """Body of `PATCH /deployments/{id}/preset`."""

    preset: str | None = Field(
        description=f"one of {', '.join(catalog.PRESETS)}; null keeps the hardware and takes the preset's settings back"
    )
    vllm_args: list[str] | None = Field(
        None, max_length=MOST_ARGUMENTS, description=f"{_VLLM_ARGS}; left out, they stay as they are"
    )


class Serving(BaseModel):
    """How a model of the catalog is served on this hardware; `note` says what is not as its preset prefers it."""

    checkpoint: str
    dtype: str
    max_context_tokens: int
    vllm_args: list[str]
    note: str


class DeploymentView(BaseModel):
    """A deployment as its owner sees it."""

    id: str
    name: str
    status: Phase
    status_reason: str
    conditions: list[Condition]
    model_id: str
    gpu_type: str
    region: str
    replicas: int
    ready_replicas: int
    endpoint_url: str
    hourly_cost_usd: float
    preset: str | None
    vllm_args: list[str] = Field(description="its owner's own options")
    serving: Serving | None = Field(description="null for own weights, which vLLM does not serve")
    scaling: Scaling
    generation: int
    observed_generation: int
    created_at: datetime
    updated_at: datetime


class DeploymentPage(BaseModel):
    """A page of deployments, newest first; ask for the next with `after` = the last one's id."""

    data: list[DeploymentView]
    has_more: bool


class GpuModelConfig(BaseModel):
    """A GPU and a model that fits it."""

    gpu_type: str
    hardware: str
    vram_gb: int
    hourly_cost_usd: float
    model_id: str
    dtype: str
    checkpoint: str
    max_context_tokens: int
    regions: list[str]
    presets: list[str]


class GpuModelConfigs(BaseModel):
    """Answer of `GET /gpu-model-configs`."""

    data: list[GpuModelConfig]


class ReplicaLogs(BaseModel):
    """The last lines of one replica; `error` says why there are none."""

    replica: str
    lines: list[str]
    error: str | None = None


class DeploymentLogs(BaseModel):
    """Answer of `GET /deployments/{id}/logs`."""

    data: list[ReplicaLogs]


class StackResource(BaseModel):
    """One resource of a stack; inputs and outputs stay with the operator."""

    urn: str
    type: str
    name: str
    id: str | None
    parent: str | None


class StackUpdate(BaseModel):
    """How the newest stack operation went."""

    id: str
    kind: str
    state: str
    generation: int
    message: str
    resource_changes: dict[str, int]
    requested_at: datetime
    finished_at: datetime | None


class StackView(BaseModel):
    """A deployment's Pulumi stack; secret outputs read `[secret]`."""

    stack: str
    resources: list[StackResource]
    outputs: dict[str, Any]
    last_update: StackUpdate | None


class CostInterval(BaseModel):
    """One replica's billed time."""

    replica: str
    gpu_type: str
    hourly_rate_usd: float
    started_at: datetime
    ended_at: datetime | None
    seconds: float


class DeploymentCost(BaseModel):
    """What a deployment has cost so far: whole micro-dollars, and the same as decimal text in dollars."""

    deployment_id: str
    hourly_cost_usd: float
    microdollars: int
    usd: str
    as_of: datetime
    intervals: list[CostInterval]


def status_of(row: DeploymentRow) -> Phase:
    """The status a user sees: an accepted edit shows at once, before the reconciler has moved the phase."""
    phase = deployments.phase_of(row)
    if row.delete_requested_at is not None and phase is not Phase.INACTIVE:
        return Phase.TEARDOWN
    if phase is Phase.ACTIVE and row.observed_generation < row.generation:
        return Phase.SCALING
    return phase


def ready_replicas(row: DeploymentRow) -> int:
    """Replicas whose last health check was good."""
    return sum(r.get("phase") == ReplicaPhase.READY for r in row.replicas)


def deployment_view(row: DeploymentRow, public_url: str) -> DeploymentView:
    """A row as its owner sees it."""
    spec = deployments.spec_of(row)
    billed = deployments.running_spec_of(row).replicas if row.delete_requested_at is None else 0
    return DeploymentView(
        id=row.id,
        name=row.name,
        status=status_of(row),
        status_reason=row.suspended_reason or row.phase_reason,
        conditions=[Condition.model_validate(c) for c in row.conditions],
        model_id=spec.model_id,
        gpu_type=spec.gpu_type,
        region=spec.region,
        replicas=spec.replicas,
        ready_replicas=ready_replicas(row),
        endpoint_url=f"{public_url}/api/v1/public/deployments/{row.id}",
        hourly_cost_usd=float(catalog.hourly_usd(spec.gpu_type) * billed),
        preset=spec.preset,
        vllm_args=list(spec.vllm_args),
        serving=serving_of(spec),
        scaling=spec.scaling,
        generation=row.generation,
        observed_generation=row.observed_generation,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def serving_of(spec: DeploymentSpec) -> Serving | None:
    """What the catalog makes of a specification; None for own weights, and for what it no longer knows."""
    try:
        placement = catalog.choose(
            spec.model_id, spec.gpu_type, spec.region, spec.preset, reserved_gib=spec.reserved_gib,
            vllm_args=spec.vllm_args,
        )  # fmt: skip
    except InvalidSpec:
        return None
    return Serving(
        checkpoint=placement.checkpoint.source, dtype=placement.checkpoint.dtype,
        max_context_tokens=placement.max_context_tokens, vllm_args=list(placement.vllm_args), note=placement.note,
    )  # fmt: skip
