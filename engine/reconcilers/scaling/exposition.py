"""Picks a handful of named gauges out of a Prometheus exposition. Not a parser of it: the rest is not looked at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite

RUNNING = (b"vllm:num_requests_running", b"llamacpp:requests_processing")
WAITING = (b"vllm:num_requests_waiting", b"llamacpp:requests_deferred")
KV_CACHE = (b"vllm:kv_cache_usage_perc", b"vllm:gpu_cache_usage_perc", b"llamacpp:kv_cache_usage_ratio")
"""vLLM 0.10 renamed the second to the first; all three are shares, whatever the names say."""

GPU_PERCENT = (b"DCGM_FI_DEV_GPU_UTIL", b"gpu_gfx_activity")
"""Of NVIDIA's DCGM exporter and of ROCm's device metrics exporter."""


@dataclass(frozen=True)
class Gauges:
    """What one replica says of itself; None: its server does not report it."""

    running: int | None = None
    waiting: int | None = None
    kv_cache: float | None = None
    gpu_utilisation: float | None = None


def gauges_of(text: bytes) -> Gauges:
    """The gauges in an exposition, summed (requests) or averaged (shares) over models and engines of one machine."""
    lines = b"\n" + text
    kv_cache, percent = _mean(lines, KV_CACHE), _mean(lines, GPU_PERCENT)
    return Gauges(
        running=_total(lines, RUNNING),
        waiting=_total(lines, WAITING),
        kv_cache=None if kv_cache is None else min(1.0, max(0.0, kv_cache)),
        gpu_utilisation=None if percent is None else min(1.0, max(0.0, percent / 100)),
    )


def _total(lines: bytes, names: tuple[bytes, ...]) -> int | None:
    """All of them: vLLM and llama.cpp may serve beside each other."""
    values = [value for name in names for value in _samples(lines, name)]
    return max(0, round(sum(values))) if values else None


def _mean(lines: bytes, names: tuple[bytes, ...]) -> float | None:
    """The first name that is there: a server in the middle of a renaming says both."""
    for name in names:
        if values := list(_samples(lines, name)):
            return sum(values) / len(values)
    return None


def _samples(lines: bytes, name: bytes) -> Iterator[float]:
    """Values of `name{labels} value [timestamp]`; a label may hold any character, `}` and spaces too."""
    start = lines.find(b"\n" + name)
    while start >= 0:
        begin = start + 1
        end = lines.find(b"\n", begin)
        line = lines[begin : end if end >= 0 else len(lines)]
        if (value := _value(line[len(name) :])) is not None:
            yield value
        start = lines.find(b"\n" + name, begin)


def _value(rest: bytes) -> float | None:
    if rest[:1] == b"{":
        rest = rest[_labels_end(rest) :]
    elif rest[:1] not in (b" ", b"\t"):
        return None  # another series whose name begins the same
    fields = rest.split()
    try:
        value = float(fields[0])
    except (IndexError, ValueError):
        return None
    return value if isfinite(value) else None


def _labels_end(rest: bytes) -> int:
    """Where the labels end: at the first `}` outside of quotes."""
    quoted = escaped = False
    for position, byte in enumerate(rest):
        if escaped:
            escaped = False
        elif byte == 0x5C:  # backslash
            escaped = quoted
        elif byte == 0x22:  # double quote
            quoted = not quoted
        elif byte == 0x7D and not quoted:  # closing brace
            return position + 1
    return len(rest)
