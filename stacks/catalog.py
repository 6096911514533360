"""The one table of GPU types, regions, prices, presets and models. Plain data: no I/O, no pulumi.

Hourly rates are what the customer pays (AINative's dedicated deployments). Droplet sizes and images are
DigitalOcean's slugs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeVar

from engine.model.errors import InvalidSpec

T = TypeVar("T")


@dataclass(frozen=True)
class GpuType:
    """Hardware a deployment can ask for.

    Attributes:
        vram_gib: memory of all its GPUs together.
        hourly_usd: price per replica.
        droplet_size, droplet_image: DigitalOcean slugs.
        container_image: the vLLM build for its maker (CUDA or ROCm).
    """

    slug: str
    hardware: str
    vendor: str
    gpus: int
    vram_gib: int
    hourly_usd: Decimal
    droplet_size: str
    droplet_image: str
    container_image: str


CUDA_IMAGE = "vllm/vllm-openai:v0.11.0"
ROCM_IMAGE = "rocm/vllm:rocm7.0.0_vllm_0.11.2_20251210"

GPU_TYPES: Mapping[str, GpuType] = {
    g.slug: g
    for g in (
        GpuType("h100", "1× NVIDIA H100", "nvidia", 1, 80, Decimal("4.41"),
                "gpu-h100x1-80gb", "gpu-h100x1-base", CUDA_IMAGE),
        GpuType("mi300x", "1× AMD MI300X", "amd", 1, 192, Decimal("2.59"),
                "gpu-mi300x1-192gb", "gpu-amd-base", ROCM_IMAGE),
        GpuType("mi300x_8", "8× AMD MI300X", "amd", 8, 1536, Decimal("20.70"),
                "gpu-mi300x8-1536gb", "gpu-amd-base", ROCM_IMAGE),
        GpuType("mi325x", "1× AMD MI325X", "amd", 1, 256, Decimal("2.98"),
                "gpu-mi325x1-256gb", "gpu-amd-base", ROCM_IMAGE),
        GpuType("mi325x_8", "8× AMD MI325X", "amd", 8, 2048, Decimal("23.82"),
                "gpu-mi325x8-2048gb", "gpu-amd-base", ROCM_IMAGE),
    )
}  # fmt: skip

REGIONS: Mapping[str, str] = {"atl1": "Atlanta", "nyc2": "New York", "tor1": "Toronto", "ric1": "Richmond"}


@dataclass(frozen=True)
class Checkpoint:
    """One set of weights of a model, and what it needs.

    Attributes:
        source: Hugging Face repository.
        dtype: `fp16` (any 16-bit float), `fp8` or `int8`.
        weights_gib: size of the weights in GPU memory.
    """

    source: str
    dtype: str
    weights_gib: float


@dataclass(frozen=True)
class Model:
    """A model of the catalog, with its checkpoints in order of preference (best quality first)."""

    id: str
    parameters_b: float
    context_tokens: int
    kv_cache_gib_per_1k_tokens: float
    checkpoints: Sequence[Checkpoint]
    gated: bool = False


MODELS: Mapping[str, Model] = {
    m.id: m
    for m in (
        Model("llama-3.3-70b-instruct", 70.6, 131072, 0.3125, (
            Checkpoint("meta-llama/Llama-3.3-70B-Instruct", "fp16", 131.5),
            Checkpoint("RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic", "fp8", 67.7),
            Checkpoint("RedHatAI/Llama-3.3-70B-Instruct-quantized.w8a8", "int8", 67.7),
        ), gated=True),
        Model("llama-3.1-8b-instruct", 8.03, 131072, 0.125, (
            Checkpoint("meta-llama/Llama-3.1-8B-Instruct", "fp16", 15.0),
            Checkpoint("RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8-dynamic", "fp8", 8.5),
            Checkpoint("RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w8a8", "int8", 8.5),
        ), gated=True),
        Model("qwen2.5-72b-instruct", 72.7, 32768, 0.3125, (
            Checkpoint("Qwen/Qwen2.5-72B-Instruct", "fp16", 135.4),
            Checkpoint("RedHatAI/Qwen2.5-72B-Instruct-FP8-dynamic", "fp8", 69.6),
            Checkpoint("RedHatAI/Qwen2.5-72B-Instruct-quantized.w8a8", "int8", 69.6),
        )),
        Model("llama-3.1-405b-instruct", 405.9, 131072, 0.4922, (
            Checkpoint("meta-llama/Llama-3.1-405B-Instruct", "fp16", 756.0),
            Checkpoint("meta-llama/Llama-3.1-405B-Instruct-FP8", "fp8", 410.0),
        ), gated=True),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Preset:
    """Hardware and vLLM settings under one name (AINative's inference presets)."""

    slug: str
    gpu_type: str
    dtype: str
    vllm_args: Sequence[str]


MAX_BATCH_ARGS = ("--max-num-seqs", "512", "--max-num-batched-tokens", "16384")
MIN_BATCH_ARGS = ("--max-num-seqs", "8")
NGRAM_SPECULATION = ("--speculative-config",
                     '{"method":"ngram","num_speculative_tokens":4,"prompt_lookup_max":4}')  # fmt: skip

PRESETS: Mapping[str, Preset] = {
    p.slug: p
    for p in (
        Preset("speed", "h100", "fp16", MAX_BATCH_ARGS),
        Preset("latency", "h100", "", NGRAM_SPECULATION + MIN_BATCH_ARGS),
        Preset("cost", "mi300x", "int8", ()),
        Preset("balanced", "mi300x", "fp16", ()),
    )
}

MIN_CONTEXT_TOKENS = 8192
"""A deployment that cannot hold one conversation of this length is refused: vLLM would start and be of no use."""

USABLE_VRAM = 0.92
"""Share of GPU memory vLLM may take (`--gpu-memory-utilization`); the rest is for CUDA graphs and fragmentation."""

RUNTIME_GIB_PER_GPU = 2.0
"""Activations and the CUDA or ROCm context on each GPU."""


@dataclass(frozen=True)
class Placement:
    """A (model, GPU) pair that fits: the checkpoint chosen and the context length that is left for it."""

    model: Model
    gpu: GpuType
    checkpoint: Checkpoint
    max_context_tokens: int
    preset: Preset | None = None

    @property
    def vllm_args(self) -> tuple[str, ...]:
        """Arguments after `vllm`, for the container of this placement."""
        return (
            "serve", self.checkpoint.source,
            "--served-model-name", self.model.id,
            "--max-model-len", str(self.max_context_tokens),
            "--gpu-memory-utilization", str(USABLE_VRAM),
            "--tensor-parallel-size", str(self.gpu.gpus),
            *(self.preset.vllm_args if self.preset else ()),
        )  # fmt: skip


def context_that_fits(model: Model, gpu: GpuType, checkpoint: Checkpoint) -> int:
    """Tokens of context left on `gpu` beside the weights, a multiple of 1024, at most the model's own; 0 = no room."""
    room = gpu.vram_gib * USABLE_VRAM - RUNTIME_GIB_PER_GPU * gpu.gpus - checkpoint.weights_gib
    return max(0, min(model.context_tokens, int(room / model.kv_cache_gib_per_1k_tokens) * 1024))


def _fitting(model: Model, gpu: GpuType, dtype: str) -> tuple[Checkpoint, int] | None:
    for checkpoint in model.checkpoints:
        context = context_that_fits(model, gpu, checkpoint)
        if context >= MIN_CONTEXT_TOKENS and dtype in ("", checkpoint.dtype):
            return checkpoint, context
    return None


def choose(model_id: str, gpu_type: str, region: str, preset: str | None = None) -> Placement:
    """The checkpoint and settings for a model on a GPU.

    Raises:
        InvalidSpec: unknown model, GPU, region or preset, or a combination that does not fit; names the valid ones.
    """
    model = _known("model_id", model_id, MODELS)
    gpu = _known("gpu_type", gpu_type, GPU_TYPES)
    _known("region", region, REGIONS)
    chosen = _known("preset", preset, PRESETS) if preset else None
    if chosen and chosen.gpu_type != gpu_type:
        raise InvalidSpec(
            f"preset {chosen.slug} runs on {chosen.gpu_type}, not on {gpu_type}", field="gpu_type",
            valid=[chosen.gpu_type],
        )  # fmt: skip
    fit = _fitting(model, gpu, chosen.dtype if chosen else "")
    if fit is None:
        valid = [g for g in GPU_TYPES if _fitting(model, GPU_TYPES[g], "")]
        raise InvalidSpec(
            f"{model_id} does not fit on {gpu_type} ({gpu.vram_gib} GB)"
            + (f" as {chosen.dtype} (preset {chosen.slug})" if chosen and chosen.dtype else "")
            + f"; GPU types it fits on: {', '.join(valid)}",
            field="gpu_type", valid=valid,
        )  # fmt: skip
    return Placement(model, gpu, *fit, preset=chosen)


def _known(field: str, value: str, table: Mapping[str, T]) -> T:
    if value not in table:
        raise InvalidSpec(f"unknown {field} {value!r}; valid: {', '.join(table)}", field=field, valid=list(table))
    return table[value]


def hourly_usd(gpu_type: str) -> Decimal:
    """Price of one replica for an hour."""
    return GPU_TYPES[gpu_type].hourly_usd


def gpu_model_configs() -> list[dict[str, Any]]:
    """Every (GPU, model) pair that fits, as `GET /gpu-model-configs` lists them."""
    return [
        {
            "gpu_type": gpu.slug, "hardware": gpu.hardware, "vram_gb": gpu.vram_gib,
            "hourly_cost_usd": float(gpu.hourly_usd), "model_id": model.id, "dtype": fit[0].dtype,
            "checkpoint": fit[0].source, "max_context_tokens": fit[1], "regions": list(REGIONS),
        }
        for gpu in GPU_TYPES.values() for model in MODELS.values() if (fit := _fitting(model, gpu, ""))
    ]  # fmt: skip
