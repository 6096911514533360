"""GGUF files made by hand, as small or as large as a test wants. Holds no real weights."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from typing import Any

KEYS: Mapping[str, Any] = {
    "general.architecture": "llama",
    "general.name": "made",
    "llama.block_count": 2,
    "llama.context_length": 2048,
    "llama.embedding_length": 64,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "tokenizer.ggml.tokens": ["a", "b", "c"],
}
F16 = 1


def head(
    keys: Mapping[str, Any] = KEYS,
    tensors: Sequence[tuple[str, Sequence[int], int]] = (("token_embd.weight", (64, 32), F16),),
    *,
    version: int = 3,
    offsets: Sequence[int] | None = None,
) -> bytes:
    """Everything before the tensors' data; types are F16 (1) unless the caller knows their sizes."""
    made = bytearray(b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(keys)))
    for key, value in keys.items():
        made += _text(key) + _value(value)
    at = 0
    for number, (name, dimensions, kind) in enumerate(tensors):
        offset = offsets[number] if offsets is not None else at
        made += _text(name) + struct.pack(f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, kind, offset)
        size = 2
        for dimension in dimensions:
            size *= dimension
        at += -(-size // 32) * 32
    return bytes(made) + bytes(-len(made) % 32)


def whole(data_bytes: int = 64 * 32 * 2, **changes: Any) -> bytes:
    """A whole file with one tensor of so many bytes (a multiple of 128)."""
    return head({**KEYS, **changes}, [("token_embd.weight", (64, data_bytes // 128), F16)]) + bytes(data_bytes)


def _text(value: str) -> bytes:
    raw = value.encode()
    return struct.pack("<Q", len(raw)) + raw


def _value(value: Any) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    if isinstance(value, list) and value and isinstance(value[0], str):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(_text(one) for one in value)
    if isinstance(value, list):
        return struct.pack(f"<IIQ{len(value)}I", 9, 4, len(value), *value)
    return struct.pack("<II", 4, value)
