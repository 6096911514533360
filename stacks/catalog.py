"""The one table of GPU types, regions, prices, presets and models. Plain data: no I/O, no pulumi.

Hourly rates are what the customer pays (AINative's dedicated deployments). Droplet sizes and images are
DigitalOcean's slugs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any, TypeVar

from engine.model.errors import InvalidSpec
from stacks.vllm_options import check_for_users, merged, require_consistent, tokens, value_of

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
        quantization: vLLM's name for how they were made smaller; "" for 16 bits.
    """

    source: str
    dtype: str
    weights_gib: float
    quantization: str = ""


@dataclass(frozen=True)
class Model:
    """A model of the catalog, with its checkpoints in order of preference (best quality first)."""

    id: str
    parameters_b: float
    context_tokens: int
    kv_cache_gib_per_1k_tokens: float
    checkpoints: Sequence[Checkpoint]
    gated: bool = False


_COMPRESSED = "compressed-tensors"  # what llm-compressor writes

MODELS: Mapping[str, Model] = {
    m.id: m
    for m in (
        Model("llama-3.3-70b-instruct", 70.6, 131072, 0.3125, (
            Checkpoint("meta-llama/Llama-3.3-70B-Instruct", "fp16", 131.5),
            Checkpoint("RedHatAI/Llama-3.3-70B-Instruct-FP8-dynamic", "fp8", 67.7, _COMPRESSED),
            Checkpoint("RedHatAI/Llama-3.3-70B-Instruct-quantized.w8a8", "int8", 67.7, _COMPRESSED),
        ), gated=True),
        Model("llama-3.1-8b-instruct", 8.03, 131072, 0.125, (
            Checkpoint("meta-llama/Llama-3.1-8B-Instruct", "fp16", 15.0),
            Checkpoint("RedHatAI/Meta-Llama-3.1-8B-Instruct-FP8-dynamic", "fp8", 8.5, _COMPRESSED),
            Checkpoint("RedHatAI/Meta-Llama-3.1-8B-Instruct-quantized.w8a8", "int8", 8.5, _COMPRESSED),
        ), gated=True),
        Model("qwen2.5-72b-instruct", 72.7, 32768, 0.3125, (
            Checkpoint("Qwen/Qwen2.5-72B-Instruct", "fp16", 135.4),
            Checkpoint("RedHatAI/Qwen2.5-72B-Instruct-FP8-dynamic", "fp8", 69.6, _COMPRESSED),
            Checkpoint("RedHatAI/Qwen2.5-72B-Instruct-quantized.w8a8", "int8", 69.6, _COMPRESSED),
        )),
        Model("llama-3.1-405b-instruct", 405.9, 131072, 0.4922, (
            Checkpoint("meta-llama/Llama-3.1-405B-Instruct", "fp16", 756.0),
            Checkpoint("meta-llama/Llama-3.1-405B-Instruct-FP8", "fp8", 410.0, "fbgemm_fp8"),
        ), gated=True),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Preset:
    """Hardware and vLLM settings under one name (AINative's inference presets).

    Attributes:
        dtype: weights it prefers; where these do not fit, or the model has none, the best that fit are taken.
        scale_to_zero: applying it turns this on.
    """

    slug: str
    gpu_type: str
    dtype: str
    vllm_args: Sequence[str]
    scale_to_zero: bool = False


MAX_BATCH_ARGS = ("--max-num-seqs", "512", "--max-num-batched-tokens", "16384")
MIN_BATCH_ARGS = ("--max-num-seqs", "8")
NGRAM_SPECULATION = ("--speculative-config",
                     '{"method":"ngram","num_speculative_tokens":4,"prompt_lookup_max":4}')  # fmt: skip

PRESETS: Mapping[str, Preset] = {
    p.slug: p
    for p in (
        Preset("speed", "h100", "fp16", MAX_BATCH_ARGS),
        Preset("latency", "h100", "", NGRAM_SPECULATION + MIN_BATCH_ARGS),
        Preset("cost", "mi300x", "int8", (), scale_to_zero=True),
        Preset("balanced", "mi300x", "fp16", ()),  # vLLM finds the batch by itself
    )
}

MIN_CONTEXT_TOKENS = 8192
"""A deployment that cannot hold one conversation of this length is refused: vLLM would start and be of no use."""

USABLE_VRAM = 0.92
"""Share of GPU memory vLLM may take (`--gpu-memory-utilization`); the rest is for CUDA graphs and fragmentation."""

_ROUNDING_GIB = 0.02
"""What is reserved is rounded up to hundredths; a context that fits exactly must not be lost by that."""

RUNTIME_GIB_PER_GPU = 2.0
"""Activations and the CUDA or ROCm context on each GPU."""


@dataclass(frozen=True)
class Placement:
    """A (model, GPU) pair that fits: the checkpoint chosen and the context length that is left for it.

    Attributes:
        reserved_gib: memory of the GPUs together that is left to others.
        extra_args: a user's own vLLM options, checked.
    """

    model: Model
    gpu: GpuType
    checkpoint: Checkpoint
    max_context_tokens: int
    preset: Preset | None = None
    reserved_gib: float = 0.0
    extra_args: tuple[str, ...] = ()

    @cached_property
    def vllm_args(self) -> tuple[str, ...]:
        """Arguments after `vllm`, for the container of this placement."""
        ours = (
            "--served-model-name", self.model.id,
            "--dtype", self._dtype,
            *(("--quantization", self.checkpoint.quantization) if self.checkpoint.quantization else ()),
            "--max-model-len", str(self.max_context_tokens),
            "--gpu-memory-utilization", str(usable_share(self.gpu, self.reserved_gib)),
            "--tensor-parallel-size", str(self.gpu.gpus),
            *(self.preset.vllm_args if self.preset else ()),
        )  # fmt: skip
        return ("serve", self.checkpoint.source, *merged(ours, self.extra_args))

    @property
    def _dtype(self) -> str:
        """The documented presets say fp16; without one the weights stay as they were made."""
        asked = self.preset is not None and self.preset.dtype == self.checkpoint.dtype == "fp16"
        return "float16" if asked else "auto"

    @property
    def note(self) -> str:
        """What is not as the preset prefers it, in a sentence; "" when all is."""
        if self.preset is None or self.preset.dtype in ("", self.checkpoint.dtype):
            return ""
        has = any(c.dtype == self.preset.dtype for c in self.model.checkpoints)
        why = (
            f"does not fit on {self.gpu.slug} as {self.preset.dtype}" if has else f"has no {self.preset.dtype} weights"
        )
        return f"{self.model.id} {why}, which preset {self.preset.slug} prefers: it runs as {self.checkpoint.dtype}"


def usable_share(gpu: GpuType, reserved_gib: float = 0.0) -> float:
    """Share of each GPU that vLLM may take; what is reserved is taken from all GPUs alike."""
    return round(USABLE_VRAM - reserved_gib / gpu.vram_gib, 4)


def _room_gib(gpu: GpuType, reserved_gib: float) -> float:
    """For weights and conversations."""
    return gpu.vram_gib * USABLE_VRAM - reserved_gib - RUNTIME_GIB_PER_GPU * gpu.gpus


def context_that_fits(model: Model, gpu: GpuType, checkpoint: Checkpoint, reserved_gib: float = 0.0) -> int:
    """Tokens of context left on `gpu` beside the weights, a multiple of 1024, at most the model's own; 0 = no room."""
    room = _room_gib(gpu, reserved_gib) - checkpoint.weights_gib + _ROUNDING_GIB
    return max(0, min(model.context_tokens, int(room / model.kv_cache_gib_per_1k_tokens) * 1024))


def _fitting(model: Model, gpu: GpuType, dtype: str, reserved_gib: float = 0.0) -> tuple[Checkpoint, int] | None:
    """The checkpoint of the preferred dtype, or else the best, that fits."""
    fits = [(c, context_that_fits(model, gpu, c, reserved_gib)) for c in model.checkpoints]
    fits = [(c, context) for c, context in fits if context >= MIN_CONTEXT_TOKENS]
    return next((fit for fit in fits if fit[0].dtype == dtype), fits[0] if fits else None)


def choose(
    model_id: str,
    gpu_type: str,
    region: str,
    preset: str | None = None,
    *,
    reserved_gib: float = 0.0,
    vllm_args: Sequence[str] = (),
) -> Placement:
    """The checkpoint and settings for a model on a GPU.

    Args:
        reserved_gib: memory of the GPUs together that is kept for others (own weights beside the model).
        vllm_args: a user's own options.

    Raises:
        InvalidSpec: unknown model, GPU, region, preset or option, or a combination that does not fit; names the valid
            ones.
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
    fit = _fitting(model, gpu, chosen.dtype if chosen else "", reserved_gib)
    if fit is None:
        raise _does_not_fit(model, gpu, chosen, reserved_gib)
    extra = check_for_users(vllm_args)
    _require_context(extra, fit[1], model, gpu)
    placement = Placement(model, gpu, *fit, preset=chosen, reserved_gib=reserved_gib, extra_args=extra)
    require_consistent(placement.vllm_args[2:])
    return placement


def _does_not_fit(model: Model, gpu: GpuType, preset: Preset | None, reserved_gib: float) -> InvalidSpec:
    """Says what would: GPU types, or with a preset, which brings its own, presets and then GPU types."""
    valid = [g.slug for g in GPU_TYPES.values() if _fitting(model, g, "", reserved_gib)]
    presets = [p.slug for p in PRESETS.values() if p.gpu_type in valid]
    smallest = min(c.weights_gib for c in model.checkpoints)
    room = _room_gib(gpu, reserved_gib)
    message = (
        f"{model.id} does not fit on {gpu.slug} ({gpu.vram_gib} GB): its smallest weights have {smallest:g} GiB, "
        f"{room:.1f} GiB are left for them and {MIN_CONTEXT_TOKENS} tokens of context"
        + (f" beside {reserved_gib:g} GiB for own weights" if reserved_gib else "")
        + f"; GPU types it fits on: {', '.join(valid) or 'none'}"
    )
    if preset is None:
        return InvalidSpec(message, field="gpu_type", valid=valid)
    return InvalidSpec(
        f"{message}; presets it fits: {', '.join(presets) or 'none'}", field="gpu_type", valid=valid,
        valid_presets=presets,
    )  # fmt: skip


def _require_context(extra: Sequence[str], fits: int, model: Model, gpu: GpuType) -> None:
    asked = value_of(extra, "--max-model-len")
    if asked is not None and tokens(asked) > fits:
        raise InvalidSpec(
            f"vllm_args: --max-model-len {asked}: {model.id} has room for {fits} tokens of context on {gpu.slug}",
            field="vllm_args", limit=fits, asked=tokens(asked),
        )  # fmt: skip


def _known(field: str, value: str, table: Mapping[str, T]) -> T:
    if value not in table:
        raise InvalidSpec(f"unknown {field} {value!r}; valid: {', '.join(table)}", field=field, valid=list(table))
    return table[value]


def preset_named(slug: str) -> Preset:
    """One of the presets.

    Raises:
        InvalidSpec: there is no such one; names those there are.
    """
    return _known("preset", slug, PRESETS)


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
            "presets": [p.slug for p in PRESETS.values() if p.gpu_type == gpu.slug],
        }
        for gpu in GPU_TYPES.values() for model in MODELS.values() if (fit := _fitting(model, gpu, ""))
    ]  # fmt: skip
