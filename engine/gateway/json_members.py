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
_STRUCTURE = re.compile(rb'["\[\]{}]')
_SCALAR = re.compile(rb"[^,}\]\s]*")
_IN_STRING = re.compile(rb'[^"\\]*+(?:\\.[^"\\]*+)*+', re.DOTALL)
_WINDOW_BYTES = 256 * 1024
"""A match keeps other threads from running: a long one is made in parts of some milliseconds."""

_BACKSLASH = ord("\\")
_LONGEST_KEY = 256


def members(body: bytes | bytearray, wanted: Collection[str]) -> dict[str, Any]:
    """The values of these members that are strings, numbers, true, false or null; of equal names the last counts.

    Returns:
        What was found; nothing for bytes that are not an object, and what came before the place that is not JSON.
    """
    found: dict[str, Any] = {}
    at = _skip_space(body, 0)
    if body[at : at + 1] != b"{":
        return found
    at = _skip_space(body, at + 1)
    while body[at : at + 1] == b'"':
        end = _end_of_string(body, at)
        if end < 0:
            break
        key = _load(body, at, end) if end - at <= _LONGEST_KEY else None
        at = _skip_space(body, end)
        if body[at : at + 1] != b":":
            break
        at = _skip_space(body, at + 1)
        end = _end_of_value(body, at)
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


def _end_of_value(body: bytes | bytearray, at: int) -> int:
    """Where the value that begins at `at` has ended; -1: it does not end."""
    first = body[at : at + 1]
    if first == b'"':
        return _end_of_string(body, at)
    if first not in (b"{", b"["):
        match = _SCALAR.match(body, at)
        return match.end() if match and match.end() > at else -1
    depth = 0
    while at < len(body):
        match = _STRUCTURE.search(body, at, at + _WINDOW_BYTES)
        if match is None:
            at += _WINDOW_BYTES
            continue
        at = match.end()
        char = match[0]
        if char == b'"':
            at = _end_of_string(body, at - 1)
            if at < 0:
                return -1
        elif char in b"{[":
            depth += 1
        else:
            depth -= 1
            if not depth:
                return at
    return -1


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
