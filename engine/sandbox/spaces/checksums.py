"""Checksums of what is uploaded, as S3's `x-amz-checksum-*` headers name them."""

from __future__ import annotations

import hashlib
import zlib
from base64 import b64encode
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Protocol

PREFIX = "x-amz-checksum-"


class Checksum(Protocol):
    """A running checksum."""

    def update(self, data: bytes, /) -> object: ...

    def digest(self) -> bytes: ...


class _Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes) -> None:
        self._value = zlib.crc32(data, self._value)

    def digest(self) -> bytes:
        return self._value.to_bytes(4, "big")


@lru_cache(maxsize=2)
def _table(polynomial: int) -> tuple[int, ...]:
    table = []
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = (value >> 1) ^ (polynomial if value & 1 else 0)
        table.append(value)
    return tuple(table)


class _TableCrc:
    """A reflected CRC that zlib has not; a few MiB a second, which is why clients should prefer CRC32."""

    def __init__(self, polynomial: int, bits: int) -> None:
        self._table = _table(polynomial)
        self._mask = (1 << bits) - 1
        self._size = bits // 8
        self._value = self._mask

    def update(self, data: bytes) -> None:
        value, table = self._value, self._table
        for byte in data:
            value = (value >> 8) ^ table[(value ^ byte) & 0xFF]
        self._value = value

    def digest(self) -> bytes:
        return (self._value ^ self._mask).to_bytes(self._size, "big")


ALGORITHMS: Mapping[str, Callable[[], Checksum]] = {
    "crc32": _Crc32,
    "crc32c": lambda: _TableCrc(0x82F63B78, 32),
    "crc64nvme": lambda: _TableCrc(0x9A6C9329AC4BC9B5, 64),
    "sha1": lambda: hashlib.sha1(usedforsecurity=False),
    "sha256": hashlib.sha256,
}
"""Name in headers → a new checksum."""


def named(headers: Mapping[str, str]) -> dict[str, str]:
    """The checksums among headers: algorithm → base64 text."""
    found = {n.removeprefix(PREFIX): v for n, v in headers.items() if n.startswith(PREFIX)}
    return {name: value for name, value in found.items() if name in ALGORITHMS}


def text(checksum: Checksum) -> str:
    """Base64, as headers have it."""
    return b64encode(checksum.digest()).decode()
