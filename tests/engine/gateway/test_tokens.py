"""Token counts are read from answers that pass, however these are cut into parts."""

from __future__ import annotations

import json

import pytest

from engine.gateway.tokens import TAIL_BYTES, TokenReader, last_usage

USAGE = {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}


def parts(body: bytes, size: int) -> list[bytes]:
    return [body[i : i + size] for i in range(0, len(body), size)]


def read(body: bytes, size: int, *, is_stream: bool) -> tuple[int, int]:
    reader = TokenReader(is_stream=is_stream)
    for part in parts(body, size):
        reader.read(part)
    return reader.tokens()


@pytest.mark.parametrize("size", [1, 7, 4096, 10**6])
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"choices": [{"message": {"content": 'say "usage": {"prompt_tokens": 9}'}}], "usage": USAGE}, (11, 7)),
        ({"data": ["x" * 5 * TAIL_BYTES], "usage": {"prompt_tokens": 4, "total_tokens": 4}, "t": None}, (4, 0)),
        ({"usage": {"input_tokens": 3, "output_tokens": 2, "details": {"a": [1]}}, "user": "usage"}, (3, 2)),
        ({"id": "rerank-1", "usage": {"total_tokens": 56}, "results": ["x" * 9 * TAIL_BYTES]}, (56, 0)),
        ({"choices": [], "usage": None}, (0, 0)),
        ({"usage": {"prompt_tokens": -1, "completion_tokens": True}}, (0, 0)),
    ],
)
def test_usage_of_a_whole_answer(body: dict[str, object], expected: tuple[int, int], size: int) -> None:
    text = json.dumps(body).encode()
    if len(text) // size > 50_000:
        size = 64
    assert read(text, size, is_stream=False) == expected


@pytest.mark.parametrize("size", [1, 3, 5, 64, 10**6])
@pytest.mark.parametrize("line", ["\n", "\r\n"])
def test_stream_counts_its_usage_or_else_its_events(size: int, line: str) -> None:
    pieces = [{"choices": [{"delta": {"content": f"data: {i}"}}], "usage": None} for i in range(9)]
    events = "".join(f"data: {json.dumps(piece)}{line}{line}" for piece in pieces)
    done = f"data: [DONE]{line}{line}"
    assert read((events + done).encode(), size, is_stream=True) == (0, 9)
    usage = f"data: {json.dumps({'choices': [], 'usage': USAGE})}{line}{line}"
    assert read((events + usage + done).encode(), size, is_stream=True) == (11, 7)


def test_a_long_answer_leaves_nothing_behind() -> None:
    reader = TokenReader(is_stream=False)
    for _ in range(1000):
        reader.read(b"x" * 10_000)
    assert len(reader._tail) <= 4 * TAIL_BYTES


@pytest.mark.parametrize("text", [b"", b'"usage"', b'"usage":', b'"usage": {"a"', b'"usage": "usage"', b'"usage": []'])
def test_nothing_is_read_where_nothing_is_said(text: bytes) -> None:
    assert last_usage(text) is None
