"""A small Llama network in JAX and its training; the file format is the business of `make_gguf`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp


@dataclass(frozen=True)
class Shape:
    """Sizes of the network. Rows of every matrix are multiples of 32, the block of GGUF's Q8_0."""

    vocabulary: int = 1024
    width: int = 192
    layers: int = 4
    heads: int = 6
    hidden: int = 512
    context: int = 2048
    rope_base: float = 10000.0
    epsilon: float = 1e-5

    @property
    def head_width(self) -> int:
        return self.width // self.heads


Weights = dict[str, Any]


def initial_weights(shape: Shape, seed: int) -> Weights:
    """Random weights under the tensor names of GGUF; matrices are [out, in] as there."""
    sizes: dict[str, tuple[int, ...]] = {"token_embd": (shape.vocabulary, shape.width), "output_norm": (shape.width,)}
    for i in range(shape.layers):
        sizes |= {f"blk.{i}.{name}": (shape.width,) for name in ("attn_norm", "ffn_norm")}
        sizes |= {f"blk.{i}.attn_{name}": (shape.width, shape.width) for name in ("q", "k", "v", "output")}
        sizes |= {f"blk.{i}.ffn_{name}": (shape.hidden, shape.width) for name in ("gate", "up")}
        sizes |= {f"blk.{i}.ffn_down": (shape.width, shape.hidden)}
    keys = jax.random.split(jax.random.PRNGKey(seed), len(sizes))
    return {
        name: jnp.ones(size) if len(size) == 1 else jax.random.normal(key, size) * (0.02 if "embd" in name else 0.05)
        for key, (name, size) in zip(keys, sizes.items(), strict=True)
    }


def logits(weights: Weights, tokens: Any, shape: Shape) -> Any:
    """Scores of the next token. tokens: [batch, time] -> [batch, time, vocabulary]; output matrix tied."""
    x = weights["token_embd"][tokens] * 1.0
    for i in range(shape.layers):
        layer = {name.removeprefix(f"blk.{i}."): w for name, w in weights.items() if name.startswith(f"blk.{i}.")}
        x = x + _attention(layer, _norm(x, layer["attn_norm"], shape), shape)
        x = x + _feed_forward(layer, _norm(x, layer["ffn_norm"], shape))
    return _norm(x, weights["output_norm"], shape) @ weights["token_embd"].T


def _norm(x: Any, scale: Any, shape: Shape) -> Any:
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + shape.epsilon) * scale


def _rotate(x: Any, shape: Shape) -> Any:
    """Rotary positions over neighbouring pairs (0,1), (2,3)…, which is what GGUF's `llama` expects."""
    pairs = x.reshape(*x.shape[:-1], shape.head_width // 2, 2)
    rates = shape.rope_base ** (-jnp.arange(0, shape.head_width, 2) / shape.head_width)
    angles = jnp.arange(x.shape[1])[:, None, None] * rates
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    even, odd = pairs[..., 0], pairs[..., 1]
    return jnp.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1).reshape(x.shape)


def _attention(layer: Weights, x: Any, shape: Shape) -> Any:
    batch, time, _ = x.shape
    q, k, v = ((x @ layer[f"attn_{n}"].T).reshape(batch, time, shape.heads, shape.head_width) for n in "qkv")
    scores = jnp.einsum("bthd,bshd->bhts", _rotate(q, shape), _rotate(k, shape)) / shape.head_width**0.5
    scores = jnp.where(jnp.tril(jnp.ones((time, time), bool)), scores, -1e9)
    mixed = jnp.einsum("bhts,bshd->bthd", jax.nn.softmax(scores, axis=-1), v)
    return mixed.reshape(batch, time, shape.width) @ layer["attn_output"].T


def _feed_forward(layer: Weights, x: Any) -> Any:
    return (jax.nn.silu(x @ layer["ffn_gate"].T) * (x @ layer["ffn_up"].T)) @ layer["ffn_down"].T


def train(
    weights: Weights,
    shape: Shape,
    batches: Iterator[tuple[Any, Any]],
    *,
    steps: int,
    tell: Callable[[int, float], None],
) -> Weights:
    """Adam with warm-up and cosine decay. A batch is (tokens [n, time + 1], counted [n, time]: 1 where loss counts)."""

    def loss(weights: Weights, tokens: Any, counted: Any) -> Any:
        scores = jax.nn.log_softmax(logits(weights, tokens[:, :-1], shape))
        surprise = -jnp.take_along_axis(scores, tokens[:, 1:, None], axis=-1)[..., 0]
        return (surprise * counted).sum() / counted.sum()

    def update(weights: Weights, first: Weights, second: Weights, step: Any, tokens: Any, counted: Any) -> Any:
        value, slope = jax.value_and_grad(loss)(weights, tokens, counted)
        size = jnp.sqrt(sum(jnp.sum(g * g) for g in slope.values()))
        slope = {n: g / jnp.maximum(1.0, size) for n, g in slope.items()}
        first = {n: 0.9 * first[n] + 0.1 * g for n, g in slope.items()}
        second = {n: 0.98 * second[n] + 0.02 * g * g for n, g in slope.items()}
        warm, decay = jnp.minimum(1.0, (step + 1) / 40), 0.5 * (1 + jnp.cos(jnp.pi * step / steps))
        rate = 3e-3 * warm * (0.02 + 0.98 * decay)
        m, v = 1 - 0.9 ** (step + 1), 1 - 0.98 ** (step + 1)
        moved = {n: w - rate * (first[n] / m) / (jnp.sqrt(second[n] / v) + 1e-8) for n, w in weights.items()}
        return moved, first, second, value

    compiled = jax.jit(update)
    first = {name: jnp.zeros_like(w) for name, w in weights.items()}
    second = first
    for step in range(steps):
        tokens, counted = next(batches)
        weights, first, second, value = compiled(weights, first, second, float(step), tokens, counted)
        if step % 20 == 0 or step == steps - 1:
            tell(step, float(value))
    return weights
