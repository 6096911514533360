"""Durations as Go writes and reads them: `1m30s`, `500ms`. Pure."""

from __future__ import annotations

import re

_UNITS = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")


def nanoseconds(text: str) -> int:
    """What a duration's text says.

    Raises:
        ValueError: it is none, or negative.
    """
    if text == "0":
        return 0
    parts = _PART.findall(text)
    if not parts or "".join(n + u for n, u in parts) != text:
        raise ValueError(f"{text!r} is not a duration, like 1m30s, 10s or 500ms")
    return round(sum(float(n) * _UNITS[u] for n, u in parts))


def duration(nanos: int) -> str:
    """A duration's text (Go: `Duration.String`)."""
    if nanos == 0:
        return "0s"
    if nanos < 10**9:
        unit = next(u for u in ("ms", "µs", "ns") if nanos >= _UNITS[u])
        return f"{_decimal(nanos, _UNITS[unit])}{unit}"
    minutes, rest = divmod(nanos, _UNITS["m"])
    hours, minutes = divmod(minutes, 60)
    seconds = f"{_decimal(rest, 10**9)}s"
    return f"{hours}h{minutes}m{seconds}" if hours else f"{minutes}m{seconds}" if minutes else seconds


def fault(text: str) -> str:
    """What is wrong with a duration, or ""."""
    try:
        nanoseconds(text)
    except ValueError as err:
        return str(err).replace(f"{text!r} is not", "must be")
    return ""


def same(one: str, other: str) -> bool:
    """Whether two texts say the same."""
    return one == other or (not fault(one) and not fault(other) and nanoseconds(one) == nanoseconds(other))


def _decimal(nanos: int, unit: int) -> str:
    whole, rest = divmod(nanos, unit)
    return f"{whole}.{rest:0{len(str(unit)) - 1}d}".rstrip("0").rstrip(".") if rest else str(whole)
