"""Reads the token counts out of an answer while it passes. Keeps its first and last few KiB at most, never a body."""

from __future__ import annotations

import json
from typing import Any

TAIL_BYTES = 8 * 1024
"""`usage` is the last member of OpenAI's answers but for a few short ones of the model servers' own."""

HEAD_BYTES = 1024
"""Reranking answers begin with it."""

_USAGE = b'"usage"'
_EVENT = b"\ndata:"
_DONE = b"data: [DONE]"
_DECODER = json.JSONDecoder()


class TokenReader:
    """One answer with status 200.

    Attributes:
        is_stream: it is an event stream; else it is JSON.
        events: how many data events of a stream began so far.
    """

    __slots__ = ("_before", "_head", "_tail", "events", "is_stream")

    def __init__(self, *, is_stream: bool) -> None:
        self.is_stream = is_stream
        self._head = b""
        self._tail = bytearray()
        self._before = b"\n"
        self.events = 0

    def read(self, chunk: bytes) -> int:
        """Take the next part of the body; returns how many data events of a stream begin in it."""
        tail = self._tail
        if len(self._head) < HEAD_BYTES:
            self._head += chunk[: HEAD_BYTES - len(self._head)]
        tail += chunk if len(chunk) <= TAIL_BYTES else memoryview(chunk)[-TAIL_BYTES:]
        if len(tail) > 3 * TAIL_BYTES:  # not at every part: moving the rest costs
            del tail[:-TAIL_BYTES]
        if not self.is_stream:
            return 0
        joined = self._before + chunk
        begun = joined.count(_EVENT)
        self._before = joined[1 - len(_EVENT) :]
        self.events += begun
        return begun

    def tokens(self) -> tuple[int, int]:
        """Tokens of the prompt and of the completion. A stream that does not say counts its data events."""
        for text in (bytes(self._tail), self._head):
            if usage := last_usage(text):
                return usage
        ended = self.is_stream and _DONE in self._tail
        return 0, max(0, self.events - ended)


def last_usage(text: bytes) -> tuple[int, int] | None:
    """The last `"usage": {…}` in a piece of JSON, in OpenAI's older or newer words; None when there is none."""
    at = text.rfind(_USAGE)
    while at >= 0:
        rest = text[at + len(_USAGE) :].decode("utf-8", "replace").lstrip()
        if rest.startswith(":") and (counts := _counts(rest[1:].lstrip())):
            return counts
        at = text.rfind(_USAGE, 0, at)
    return None


def _counts(text: str) -> tuple[int, int] | None:
    try:
        usage = _DECODER.raw_decode(text)[0]
    except ValueError:
        return None
    if not isinstance(usage, dict):
        return None
    completion = _number(usage, "completion_tokens", "output_tokens") or 0
    prompt = _number(usage, "prompt_tokens", "input_tokens")
    if prompt is None:
        prompt = max(0, (_number(usage, "total_tokens") or 0) - completion)
    return prompt, completion


def _number(usage: dict[str, Any], *names: str) -> int | None:
    for name in names:
        value = usage.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**40:
            return value
    return None
