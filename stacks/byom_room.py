"""What a machine leaves to own weights (BYOM), from the catalog's numbers. Plain arithmetic."""

from __future__ import annotations

from engine.model.byom import own_name
from engine.model.deployment import DeploymentSpec
from stacks import catalog
from stacks.catalog import GPU_TYPES, MIN_CONTEXT_TOKENS, RUNTIME_GIB_PER_GPU, USABLE_VRAM


def whole_gpu_gib(gpu_type: str) -> float:
    """A machine without another model.

    Raises:
        InvalidSpec: no such GPU type.
    """
    gpu = catalog._known("gpu_type", gpu_type, GPU_TYPES)
    return gpu.vram_gib * USABLE_VRAM


def beside_gib(model_id: str, gpu_type: str, region: str, preset: str | None) -> float:
    """What a model of the catalog leaves when it keeps the shortest context it is of use with."""
    placed = catalog.choose(model_id, gpu_type, region, preset)
    gpu, kept = placed.gpu, placed.model.kv_cache_gib_per_1k_tokens * MIN_CONTEXT_TOKENS / 1024
    return gpu.vram_gib * USABLE_VRAM - RUNTIME_GIB_PER_GPU * gpu.gpus - placed.checkpoint.weights_gib - kept


def room_gib(spec: DeploymentSpec) -> float:
    """GiB of GPU memory that own weights may have on each machine of a deployment, reserved already or not."""
    if own_name(spec.model_id) is not None:
        return whole_gpu_gib(spec.gpu_type)
    return beside_gib(spec.model_id, spec.gpu_type, spec.region, spec.preset)
