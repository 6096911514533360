"""The one table of GPU types, regions, prices, presets and models. Plain data: no I/O, no pulumi.

Hourly rates are what the customer pays (DESIGN.md §7, `seeds/ainative-dedicated-deployments.txt`). Droplet sizes and images are
DigitalOcean's slugs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from engine.model.errors import InvalidSpec

GIB = 1024**3


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
ROCM_IMAGE = "rocm/vllm:rocm7.0.0_vllm_0.11.1"

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
        dtype: `fp16`, `fp8` or `int8`.
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
        ), gated=True),
        Model("llama-3.1-8b-instruct", 8.03, 131072, 0.125, (
            Checkpoint("meta-llama/Llama-3.1-8B-Instruct", "fp16", 15.0),
        ), gated=True),
        Model("qwen2.5-72b-instruct", 72.7, 32768, 0.3125, (
            Checkpoint("Qwen/Qwen2.5-72B-Instruct", "fp16", 135.4),
            Checkpoint("RedHatAI/Qwen2.5-72B-Instruct-FP8-dynamic", "fp8", 69.6),
        )),
        Model("llama-3.1-405b-instruct", 405.9, 131072, 0.4922, (
            Checkpoint("meta-llama/Llama-3.1-405B-Instruct", "fp16", 756.0),
            Checkpoint("meta-llama/Llama-3.1-405B-Instruct-FP8", "fp8", 410.0),
        ), gated=True),
    )
}  # fmt: skip

MIN_CONTEXT_TOKENS = 8192
"""A deployment that cannot hold one conversation of this length is refused: vLLM would start and be useless."""

USABLE_VRAM = 0.92
"""Share of GPU memory vLLM may take (`--gpu-memory-utilization`); the rest is for CUDA graphs and fragmentation."""

RUNTIME_GIB_PER_GPU = 2.0
"""Activations and the CUDA/ROCm context on each GPU."""


@dataclass(frozen=True)
class Placement:
    """A (model, GPU) pair that fits: the checkpoint chosen and the context length that is left for it."""

    model: Model
    gpu: GpuType
    checkpoint: Checkpoint
    max_context_tokens: int
    vllm_args: Sequence[str] = field(default_factory=tuple)
