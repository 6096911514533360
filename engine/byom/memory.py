"""How much GPU memory own weights need in llama.cpp, and how long a context a room leaves them. Pure arithmetic.

An estimate: 16-bit keys and values of one context that all slots share, and what the program itself takes.
"""

from __future__ import annotations

from dataclasses import dataclass

from engine.byom.gguf import Header
from engine.model.errors import InvalidSpec

GIB = 1024**3

MIN_CONTEXT_TOKENS = 4096
"""A model that has room for less is refused, unless it was trained for less."""

STEP_TOKENS = 256
OVERHEAD_GIB = 1.0
"""CUDA or ROCm context, compute buffers of a batch; large models take more."""

OVERHEAD_SHARE = 0.05
BESIDE_CONTEXT_TOKENS = 16_384
"""Beside another model no longer context is taken from it, even where there is room."""


@dataclass(frozen=True)
class Shape:
    """What memory is computed from; kept with the model.

    Attributes:
        context_tokens: the longest context it was trained for.
    """

    weights_bytes: int
    kv_bytes_per_token: int
    context_tokens: int

    @classmethod
    def of(cls, header: Header) -> Shape:
        return cls(header.weights_bytes, header.kv_bytes_per_token, header.context_tokens)

    @property
    def least_context(self) -> int:
        """The shortest context it is served with."""
        return min(MIN_CONTEXT_TOKENS, self.context_tokens)


def need_gib(shape: Shape, context_tokens: int) -> float:
    """GPU memory with a context, in GiB, rounded up to hundredths."""
    weights = shape.weights_bytes / GIB
    overhead = max(OVERHEAD_GIB, OVERHEAD_SHARE * weights)
    exact = weights + overhead + shape.kv_bytes_per_token * context_tokens / GIB
    return -(-exact * 100 // 1) / 100


def context_in(shape: Shape, room_gib: float, most_tokens: int | None = None) -> int:
    """The longest context that fits in a room, at least the shortest one.

    Raises:
        InvalidSpec: not even that one fits; names need and room.
    """
    least = shape.least_context
    if (need := need_gib(shape, least)) > room_gib:
        raise does_not_fit(need, room_gib, least)
    most = min(shape.context_tokens, most_tokens or shape.context_tokens)
    steps = range(max(0, most - least) // STEP_TOKENS + 1)
    fewest, top = 0, len(steps) - 1
    while fewest < top:  # the largest that fits, by halves
        middle = (fewest + top + 1) // 2
        if need_gib(shape, least + middle * STEP_TOKENS) <= room_gib:
            fewest = middle
        else:
            top = middle - 1
    return least + fewest * STEP_TOKENS


def does_not_fit(need: float, room_gib: float, context_tokens: int, where: str = "the deployment's GPU") -> InvalidSpec:
    """The refusal of weights that are too large."""
    return InvalidSpec(
        f"the model needs {need:.2f} GiB of GPU memory with a context of {context_tokens} tokens, {where} has room for "
        f"{max(0.0, room_gib):.2f} GiB: quantise it further, or use a larger GPU",
        need_gib=need, room_gib=round(max(0.0, room_gib), 2), context_tokens=context_tokens,
    )  # fmt: skip
