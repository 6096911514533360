"""The GGUF head reader: real and made files, and hostile ones, which may only ever be refused."""

from __future__ import annotations

import struct
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import engine.sandbox.weights
from engine.byom import gguf
from engine.byom.gguf import GgufError, GgufReader, Header
from tests.fakes import gguf_file
from tests.fakes.gguf_file import KEYS, head, whole

TINY = Path(engine.sandbox.weights.__file__).parent / "stackyard-tiny.gguf"


def read(content: bytes, piece: int = 1 << 20) -> Header:
    reader = GgufReader(len(content))
    for at in range(0, len(content), piece):
        reader.feed(content[at : at + piece])
    return reader.finish()


@pytest.mark.parametrize("piece", [11, 4096, 1 << 22])
def test_real_file_is_read_in_pieces_of_any_size(piece: int) -> None:
    content = TINY.read_bytes()
    found = read(content, piece)
    assert (found.architecture, found.layers, found.context_tokens, found.embedding_length) == ("llama", 4, 2048, 192)
    assert (found.heads, found.kv_heads, found.key_length, found.vocabulary) == (6, (6,) * 4, 32, 1024)
    assert (found.file_type, found.tensors, found.tensor_types) == (7, 38, {"Q8_0": 29, "F32": 9})
    assert found.data_end == len(content)
    assert found.kv_bytes_per_token == 4 * 6 * 64 * 2


def test_heads_of_each_layer_and_lengths_of_their_own_count() -> None:
    found = read(whole(**{"llama.attention.head_count_kv": [0, 3], "llama.attention.key_length": 40}))
    assert (found.kv_heads, found.key_length, found.value_length) == ((0, 3), 40, 16)
    assert found.kv_bytes_per_token == 3 * 56 * 2


def without(key: str) -> bytes:
    return head({name: value for name, value in KEYS.items() if name != key}) + bytes(4096)


REFUSED: dict[str, tuple[bytes, str, dict[str, Any]]] = {
    "nothing": (b"", "the file is empty", {"offset": 0}),
    "another format": (b"PK\3\4" + bytes(100), "begins with '504b0304', not with 'GGUF'", {"measured": "504b0304"}),
    "safetensors": (b"\x80\0\0\0\0\0\0\0{}", "it is no GGUF file", {"expected": "GGUF"}),
    "version 1": (b"GGUF" + struct.pack("<I", 1) + bytes(16), "version 1 is not served", {"expected": [2, 3]}),
    "big-endian": (b"GGUF" + struct.pack(">I", 3) + bytes(16), "3, big-endian", {}),
    "no tensors": (head(tensors=()), "0 tensors", {"measured": 0}),
    "too many tensors": (b"GGUF" + struct.pack("<IQQ", 3, 1 << 40, 1), "1099511627776 tensors", {"expected": 65536}),
    "too many keys": (b"GGUF" + struct.pack("<IQQ", 3, 1, 1 << 63), "keys; 10000 are possible", {"expected": 10000}),
    "long key": (b"GGUF" + struct.pack("<IQQQ", 3, 1, 1, 1 << 60), "a key of", {"expected": 65535, "offset": 32}),
    "no architecture": (without("general.architecture"), "general.architecture is missing", {}),
    "no layers": (without("llama.block_count"), "llama.block_count is missing", {"expected": "llama.block_count"}),
    "no context": (without("llama.context_length"), "llama.context_length is missing", {}),
    "a part": (whole(**{"split.count": 3}), "one of 3 parts", {"measured": 3}),
    "odd alignment": (whole(**{"general.alignment": 48}), "general.alignment is 48", {"measured": 48}),
    "unknown type": (head(tensors=[("t", (64,), 99)]), "has the type 99", {"measured": 99}),
    "odd block": (head(tensors=[("t", (33,), 8)]), "rows of 33 numbers", {"expected": 32, "measured": 33}),
    "overflow": (head(tensors=[("t", (1 << 40, 1 << 40), 1)]), "which cannot be", {}),
    "zero": (head(tensors=[("t", (0, 4), 1)]), "which cannot be", {}),
    "five dimensions": (head(tensors=[("t", (1,) * 5, 1)]), "has 5 dimensions", {"measured": 5}),
    "hole": (head(offsets=[4096]), "should begin at 0 of the data, the file says 4096", {"expected": 0}),
    "twice": (head(tensors=[("t", (64,), 1), ("t", (64,), 1)]), "the tensor t comes twice", {}),
    "truncated data": (whole()[:-1], "the file is truncated", {"measured": len(whole()) - 1, "expected": len(whole())}),
    "truncated head": (whole()[:200], "in the middle of its header", {"measured": 200}),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_served_is_refused_with_where_and_what(name: str) -> None:
    content, words, details = REFUSED[name]
    with pytest.raises(GgufError) as refused:
        read(content, 13)
    assert words in refused.value.message
    assert details.items() <= refused.value.details.items()


def test_refusals_can_be_written_down_whatever_names_a_file_has() -> None:
    content = head(KEYS, [("a\0b", (32,), 99)])
    with pytest.raises(GgufError) as refused:
        read(content)
    assert "tensor a\ufffdb has the type 99" in refused.value.message


def test_truncation_is_known_from_the_announced_length_alone() -> None:
    content = whole(1 << 20)
    reader = GgufReader(limit_bytes=500_000)
    with pytest.raises(GgufError, match="the tensors need"):
        reader.feed(content[:4096])


@settings(max_examples=300, deadline=None)
@given(at=st.integers(0, len(whole())), flip=st.integers(1, 255), cut=st.integers(0, len(whole())))
def test_flipped_and_cut_files_are_read_or_refused(at: int, flip: int, cut: int) -> None:
    content = bytearray(whole())
    if at < len(content):
        content[at] ^= flip
    try:
        read(bytes(content[:cut]), 64)
    except GgufError as err:
        assert err.message and 0 <= err.offset <= gguf.LARGEST_HEAD
    else:
        assert cut >= len(gguf_file.head())


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_behind_the_magic_are_refused(noise: bytes) -> None:
    with pytest.raises(GgufError):
        read(b"GGUF\3\0\0\0" + noise, 50)


def test_hostile_sizes_take_little_memory() -> None:
    """A head of 60 MB: huge vocabulary, long strings nobody needs, arrays under keys that are kept."""
    array = {f"llama{n}.attention.head_count": [7] * 4096 for n in range(50)}
    noise = {f"noise.{n}": "x" * 1_000_000 for n in range(30)}
    content = head({**KEYS, "tokenizer.ggml.tokens": ["token"] * 300_000, **noise, **array}) + bytes(4096)
    tracemalloc.start()
    read(content)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 24 * 1024**2
    array |= {f"more{n}.attention.head_count": [7] for n in range(60)}
    with pytest.raises(GgufError, match="too many are like it"):
        read(head({**KEYS, **array}))
