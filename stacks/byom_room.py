"""What a machine leaves to own weights (BYOM), from the catalog's numbers. Plain arithmetic."""

from __future__ import annotations

from engine.model.byom import own_name
from engine.model.deployment import DeploymentSpec
from engine.model.errors import InvalidSpec
from stacks import catalog
from stacks.catalog import GPU_TYPES, MIN_CONTEXT_TOKENS, REGIONS, RUNTIME_GIB_PER_GPU, USABLE_VRAM, GpuType
from stacks.vllm_options import tokens, value_of


def own_gpu(gpu_type: str, region: str) -> GpuType:
    """The hardware of a deployment that is made of own weights alone.

    Raises:
        InvalidSpec: no such GPU type, or no such region; names the valid ones.
    """
    for name, value, known in (("gpu_type", gpu_type, list(GPU_TYPES)), ("region", region, list(REGIONS))):
        if value not in known:
            raise InvalidSpec(f"unknown {name} {value!r}; valid: {', '.join(known)}", field=name, valid=known)
    return GPU_TYPES[gpu_type]


def whole_gpu_gib(gpu_type: str) -> float:
    """A machine without another model."""
    return _floored(GPU_TYPES[gpu_type].vram_gib * USABLE_VRAM)


def room_gib(spec: DeploymentSpec) -> float:
    """GiB of GPU memory that own weights may have on each machine of a deployment, reserved already or not.

    A model of the catalog keeps its weights as they are and the shortest context it is of use with, or the one its
    owner asked for.
    """
    if own_name(spec.model_id) is not None:
        return whole_gpu_gib(spec.gpu_type)
    placed = catalog.choose(spec.model_id, spec.gpu_type, spec.region, spec.preset)
    asked = value_of(spec.vllm_args, "--max-model-len")
    context = max(MIN_CONTEXT_TOKENS, tokens(asked) if asked is not None else 0)
    gpu, kept = placed.gpu, placed.model.kv_cache_gib_per_1k_tokens * context / 1024
    return _floored(gpu.vram_gib * USABLE_VRAM - RUNTIME_GIB_PER_GPU * gpu.gpus - placed.checkpoint.weights_gib - kept)


def _floored(gib: float) -> float:
    return max(0.0, gib * 100 // 1 / 100)
