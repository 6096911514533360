"""Go's seeded random numbers: the same 32 bytes give the same names as the official engine's.

Not for secrets. Source: Go `internal/chacha8rand` and `math/rand/v2` (ChaCha8), frand `Intn`.
"""

from __future__ import annotations

import struct

_CONSTANTS = (0x61707865, 0x3320646E, 0x79622D32, 0x6B206574)
_BLOCKS = 4  # are made at once, interleaved
_LAST = 16 - _BLOCKS  # of a round; its end becomes the next seed
_RESEED_WORDS = 4
_MASK = 0xFFFFFFFF


class ChaCha8:
    """A stream of random numbers."""

    def __init__(self, seed: bytes) -> None:
        """`seed`: 32 bytes."""
        self._seed: tuple[int, ...] = struct.unpack("<8I", seed)
        self._counter = 0
        self._words = _block(self._seed, 0)
        self._next, self._end = 0, len(self._words)
        self._rest = b""

    def uint64(self) -> int:
        """The next number below 2**64."""
        if self._next == self._end:
            self._refill()
        word = self._words[self._next]
        self._next += 1
        return word

    def read(self, size: int) -> bytes:
        """The next `size` bytes."""
        data, self._rest = self._rest[:size], self._rest[size:]
        while len(data) < size:
            word = self.uint64().to_bytes(8, "little")
            missing = size - len(data)
            data, self._rest = data + word[:missing], word[missing:]
        return data

    def below(self, limit: int) -> int:
        """A number from 0 to `limit` - 1, each as likely."""
        largest = 2**64 - 1
        even = largest - largest % limit
        while (number := self.uint64()) >= even:
            pass
        return number % limit

    def _refill(self) -> None:
        if self._counter == _LAST:
            words = self._words[-_RESEED_WORDS:]
            self._seed = tuple(half for word in words for half in (word & _MASK, word >> 32))
            self._counter = 0
        else:
            self._counter += _BLOCKS
        self._words = _block(self._seed, self._counter)
        self._next = 0
        self._end = len(self._words) - (_RESEED_WORDS if self._counter == _LAST else 0)


def _block(seed: tuple[int, ...], counter: int) -> list[int]:
    """Thirty-two 64-bit words of four blocks, word by word side by side."""
    rows = [_mixed(seed, counter + n) for n in range(_BLOCKS)]
    flat = [rows[column][word] for word in range(16) for column in range(_BLOCKS)]
    return [low | high << 32 for low, high in zip(flat[::2], flat[1::2], strict=True)]


def _mixed(seed: tuple[int, ...], counter: int) -> list[int]:
    words = [*_CONSTANTS, *seed, counter, 0, 0, 0]
    for _ in range(4):
        for column in range(4):
            _quarter(words, column, 4 + column, 8 + column, 12 + column)
        for column in range(4):
            _quarter(words, column, 4 + (column + 1) % 4, 8 + (column + 2) % 4, 12 + (column + 3) % 4)
    for n, word in enumerate(seed):
        words[4 + n] = words[4 + n] + word & _MASK
    return words


def _quarter(words: list[int], a: int, b: int, c: int, d: int) -> None:
    for first, second, third, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
        words[first] = words[first] + words[second] & _MASK
        mixed = words[third] ^ words[first]
        words[third] = (mixed << turn | mixed >> (32 - turn)) & _MASK
