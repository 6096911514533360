"""Finds members of a JSON object's first level in its bytes, without making objects of the rest of it.

A prompt may have 32 MiB: parsing it whole would take as much memory several times over. What is found in something that
is not JSON means nothing; whoever serves the request says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from typing import Any

_SPACE = re.compile(rb"[ \t\r\n]*")
_FLAT = re.compile(rb'(?:[^"\[\]{}]|"[^"\\]*+(?:\\.[^"\\]*+)*+")++', re.DOTALL)
_SCALAR = re.compile(rb"[^,}\]\s]*")
_IN_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_WINDOW_BYTES = 256 * 1024
"""A match keeps other threads from running: a long one is made in parts of some milliseconds."""

_BACKSLASH = ord("\\")
_LONGEST_KEY = 256

MOST_STEPS = 100_000
"""Brackets and members that are looked at, some tenths of a second. Requests have far fewer; a body of brackets alone
would keep a thread of everybody's busy for minutes.
"""
_STEPS_OF_A_MEMBER = 8


def members(body: bytes | bytearray, wanted: Collection[str]) -> dict[str, Any]:
    """The values of these members that are strings, numbers, true, false or null; of equal names the last counts.

    Returns:
        What was found; nothing for bytes that are not an object, and what came before the place that is not JSON or
        has more parts than are looked at.
    """
    found: dict[str, Any] = {}
    steps = MOST_STEPS
    at = _skip_space(body, 0)
    if body[at : at + 1] != b"{":
        return found
    at = _skip_space(body, at + 1)
    while body[at : at + 1] == b'"' and steps > 0:
        end = _end_of_string(body, at)
        if end < 0:
            break
        key = _load(body, at, end) if end - at <= _LONGEST_KEY else None
        at = _skip_space(body, end)
        if body[at : at + 1] != b":":
            break
        at = _skip_space(body, at + 1)
        end, steps = _end_of_value(body, at, steps - _STEPS_OF_A_MEMBER)
        if end < 0:
            break
        if isinstance(key, str) and key in wanted:
            found[key] = None if body[at] in b"{[" else _load(body, at, end)
        at = _skip_space(body, end)
        if body[at : at + 1] != b",":
            break
        at = _skip_space(body, at + 1)
    return found


def _load(body: bytes | bytearray, start: int, end: int) -> Any:
    try:
        return json.loads(body[start:end])
    except ValueError:
        return None


def _skip_space(body: bytes | bytearray, at: int) -> int:
    match = _SPACE.match(body, at)
    return match.end() if match else at


def _end_of_value(body: bytes | bytearray, at: int, steps: int) -> tuple[int, int]:
    """Where the value that begins at `at` has ended, and how many steps are left; -1: it does not end, or too late."""
    first = body[at : at + 1]
    if first == b'"':
        return _end_of_string(body, at), steps
    if first not in (b"{", b"["):
        match = _SCALAR.match(body, at)
        return (match.end() if match and match.end() > at else -1), steps
    depth = 0
    while at < len(body) and steps > 0:
        if match := _FLAT.match(body, at, at + _WINDOW_BYTES):
            at = match.end()
            continue
        steps -= 1
        char = body[at : at + 1]
        if char == b'"':  # longer than a window, or cut by its end
            at = _end_of_string(body, at)
            if at < 0:
                break
            continue
        at += 1
        depth += 1 if char in b"{[" else -1
        if not depth:
            return at, steps
    return -1, steps


def _end_of_string(body: bytes | bytearray, at: int) -> int:
    """Where the string whose opening quote is at `at` has ended; -1: it does not end."""
    at += 1
    quote = body.find(b'"', at)
    if quote < 0 or body[quote - 1] != _BACKSLASH or quote == at:
        return quote + 1 if quote >= 0 else -1
    while match := _IN_STRING.match(body, at, at + _WINDOW_BYTES):
        if match.end() == at:  # the closing quote, a lone backslash at the end, or the end
            return at + 1 if body[at : at + 1] == b'"' else -1
        at = match.end()
    return -1
