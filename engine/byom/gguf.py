"""Reads the head of a GGUF file while it arrives: what model it is, and whether all tensors can be there.

Pure: fed bytes, keeps a bounded amount of them whatever a file says of itself. Loads no weights, judges no quality.
Source: ggml, docs/gguf.md, and the checks of `gguf_init_from_file`.
"""

from __future__ import annotations

import struct
from collections.abc import Generator
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NoReturn

MAGIC = b"GGUF"
VERSIONS = (2, 3)

MOST_KEYS = 10_000
MOST_TENSORS = 65_536
MOST_ELEMENTS = 16_000_000
"""Of one array: the largest vocabularies have some 300,000 tokens and merges."""

LONGEST_KEY = 65_535
LONGEST_NAME = 63
"""`GGML_MAX_NAME` is 64 with the closing NUL."""

LONGEST_STRING = 16 * 1024**2
LONGEST_TOKEN = 1024**2
"""Of strings in arrays."""

LARGEST_HEAD = 256 * 1024**2
"""Everything before the tensors' data: the largest known ones have some 20 MiB."""

_KEPT_KEY = 200
_KEPT_STRING = 256
_KEPT_KEYS = 64
_KEPT_ELEMENTS = 4096
"""Arrays that are kept have one element for each layer."""

_LARGEST_ALIGNMENT = 1024**2
_LARGEST_TENSOR = 1 << 62


class GgufError(ValueError):
    """The bytes are no GGUF file this system can serve.

    Attributes:
        offset: where in the file.
        expected, measured: what should be there and what is, where that can be said.
    """

    def __init__(self, message: str, *, offset: int, expected: object = None, measured: object = None) -> None:
        super().__init__(message)
        self.message = printable(message)
        self.offset = offset
        self.expected = expected
        self.measured = measured

    @property
    def details(self) -> dict[str, Any]:
        """What an error's answer says beside the sentence."""
        facts = {"offset": self.offset, "expected": self.expected, "measured": self.measured}
        return {name: value for name, value in facts.items() if value is not None}


def printable(text: str) -> str:
    """Text that databases, logs and terminals take: files may hold any character, PostgreSQL refuses NUL."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)


class _Kind(IntEnum):
    """Types of metadata values."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


_SCALARS = {
    _Kind.UINT8: struct.Struct("<B"), _Kind.INT8: struct.Struct("<b"), _Kind.UINT16: struct.Struct("<H"),
    _Kind.INT16: struct.Struct("<h"), _Kind.UINT32: struct.Struct("<I"), _Kind.INT32: struct.Struct("<i"),
    _Kind.FLOAT32: struct.Struct("<f"), _Kind.BOOL: struct.Struct("<B"), _Kind.UINT64: struct.Struct("<Q"),
    _Kind.INT64: struct.Struct("<q"), _Kind.FLOAT64: struct.Struct("<d"),
}  # fmt: skip
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")

# ggml type → name, elements of a block, bytes of a block (ggml.h, ggml-common.h)
_TENSOR_TYPES = {
    0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24), 8: ("Q8_0", 32, 34), 9: ("Q8_1", 32, 36), 10: ("Q2_K", 256, 84), 11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144), 13: ("Q5_K", 256, 176), 14: ("Q6_K", 256, 210), 15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66), 17: ("IQ2_XS", 256, 74), 18: ("IQ3_XXS", 256, 98), 19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18), 21: ("IQ3_S", 256, 110), 22: ("IQ2_S", 256, 82), 23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1), 25: ("I16", 1, 2), 26: ("I32", 1, 4), 27: ("I64", 1, 8), 28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56), 30: ("BF16", 1, 2), 34: ("TQ1_0", 256, 54), 35: ("TQ2_0", 256, 66),
    39: ("MXFP4", 32, 17),
}  # fmt: skip


@dataclass(frozen=True)
class Header:
    """What a file's head says of its model.

    Attributes:
        context_tokens: the longest context it was trained for.
        kv_heads: heads of keys and values of each layer; empty where the model has no attention.
        key_length, value_length: numbers per head.
        vocabulary: tokens; 0 where nobody says.
        file_type: the quantisation's number as writers count them (`general.file_type`); None: not said.
        tensor_types: names of the tensors' types and how many tensors have each.
        weights_bytes: of all tensors together.
        data_offset: where their data begins; `data_end`: where it ends.
    """

    version: int
    architecture: str
    name: str
    layers: int
    context_tokens: int
    embedding_length: int
    heads: int
    kv_heads: tuple[int, ...]
    key_length: int
    value_length: int
    vocabulary: int
    file_type: int | None
    tensors: int
    tensor_types: dict[str, int]
    weights_bytes: int
    data_offset: int
    data_end: int

    @property
    def kv_bytes_per_token(self) -> int:
        """Keys and values of one token in all layers, as 16-bit floats."""
        return sum(self.kv_heads) * (self.key_length + self.value_length) * 2


class GgufReader:
    """Takes a file in pieces, in order.

    Attributes:
        header: what was found; None until the whole head was seen.
        seen: bytes fed so far.
    """

    def __init__(self, limit_bytes: int | None = None) -> None:
        """`limit_bytes`: the file is known to have no more; tensors that would end beyond are refused at once."""
        self._limit = limit_bytes
        self._buffer = bytearray()
        self._at = 0  # offset in the file of the buffer's first byte
        self._skip = 0
        self._reading = self._head()
        self._wanted = next(self._reading)
        self.header: Header | None = None
        self.seen = 0

    def feed(self, chunk: bytes | bytearray | memoryview) -> None:
        """Take the next piece.

        Raises:
            GgufError: it cannot be a GGUF file that works; names what and where.
        """
        self.seen += len(chunk)
        if self.header is not None:
            return
        view = memoryview(chunk)
        if self._skip:
            passed = min(self._skip, len(view))
            self._skip -= passed
            self._at += passed
            view = view[passed:]
        self._buffer += view
        while self.header is None and not self._skip and len(self._buffer) >= self._wanted:
            try:
                self._wanted = next(self._reading)
            except StopIteration as end:
                self.header = end.value
                self._buffer.clear()

    def finish(self) -> Header:
        """The file ended.

        Raises:
            GgufError: it is shorter than its head and tensors.
        """
        if self.header is None:
            if not self.seen:
                raise GgufError("the file is empty", offset=0, expected="GGUF", measured="")
            raise GgufError(
                f"the file ends after {self.seen} bytes, in the middle of its header: it is truncated",
                offset=self.seen, measured=self.seen,
            )  # fmt: skip
        if self.seen < self.header.data_end:
            raise _truncated(self.header.data_end, self.seen)
        return self.header

    # The head is read by a generator that yields how many bytes it needs at least; `_take` cuts them off.

    def _take(self, count: int) -> bytes:
        taken = bytes(self._buffer[:count])
        del self._buffer[:count]
        self._at += count
        if self._at > LARGEST_HEAD:
            self._fail(f"the header has more than {LARGEST_HEAD} bytes", expected=LARGEST_HEAD)
        return taken

    def _pass_over(self, count: int) -> None:
        """Leave bytes unread, also those that did not come yet."""
        if self._at + count > LARGEST_HEAD:
            self._fail(f"the header has more than {LARGEST_HEAD} bytes", expected=LARGEST_HEAD)
        here = min(count, len(self._buffer))
        del self._buffer[:here]
        self._at += here
        self._skip = count - here

    def _fail(self, message: str, *, expected: object = None, measured: object = None) -> NoReturn:
        raise GgufError(f"{message} (at byte {self._at})", offset=self._at, expected=expected, measured=measured)

    def _head(self) -> Generator[int, None, Header]:
        yield 4
        if (magic := self._take(4)) != MAGIC:
            shown = magic.decode("latin-1") if magic.isalnum() else magic.hex()
            raise GgufError(f"the file begins with {shown!r}, not with 'GGUF': it is no GGUF file", offset=0,
                            expected="GGUF", measured=shown)  # fmt: skip
        yield 4
        version = self._version()
        yield 16
        tensors, keys = struct.unpack("<QQ", self._take(16))
        if not 0 < tensors <= MOST_TENSORS:
            self._fail(f"the file says it has {tensors} tensors; 1 to {MOST_TENSORS} are possible",
                       expected=MOST_TENSORS, measured=tensors)  # fmt: skip
        if keys > MOST_KEYS:
            self._fail(f"the file says it has {keys} keys; {MOST_KEYS} are possible", expected=MOST_KEYS,
                       measured=keys)  # fmt: skip
        metadata = _Metadata()
        for _ in range(keys):
            key = yield from self._string("a key", LONGEST_KEY)
            yield 4
            kind = self._kind(_U32.unpack(self._take(4))[0])
            value = yield from self._value(kind, _wanted(key))
            if value is not None and _wanted(key) and not metadata.add(key.decode(errors="replace"), value):
                self._fail(f"the key {key.decode(errors='replace')} comes twice, or too many are like it")
        alignment = self._alignment(metadata)
        total, last, types = yield from self._tensors(tensors, alignment)
        offset = -(-self._at // alignment) * alignment
        end = offset + last  # writers may leave out the last padding
        if self._limit is not None and end > self._limit:
            raise _truncated(end, self._limit)
        return self._header(metadata, version, types, total, offset, end)

    def _version(self) -> int:
        raw = self._take(4)
        version: int = _U32.unpack(raw)[0]
        if version not in VERSIONS:
            swapped = int.from_bytes(raw, "big")
            what = f"{swapped}, big-endian" if swapped in VERSIONS else str(version)
            self._fail(f"GGUF version {what} is not served: convert the file to version 3, little-endian",
                       expected=list(VERSIONS), measured=what)  # fmt: skip
        return version

    def _kind(self, number: int) -> _Kind:
        try:
            return _Kind(number)
        except ValueError:
            self._fail(f"there is no metadata type {number}", expected="0 to 12", measured=number)

    def _string(self, what: str, longest: int) -> Generator[int, None, bytes]:
        """A string that is kept."""
        yield 8
        length: int = _U64.unpack(self._take(8))[0]
        if length > longest:
            self._fail(f"{what} of {length} bytes; {longest} are possible", expected=longest, measured=length)
        yield length
        return self._take(length)

    def _value(self, kind: _Kind, wanted: bool) -> Generator[int, None, Any]:
        """A value, or None where nobody asks for it."""
        if kind is _Kind.STRING:
            return (yield from self._text(wanted))
        if kind is _Kind.ARRAY:
            return (yield from self._array(wanted))
        scalar = _SCALARS[kind]
        yield scalar.size
        return scalar.unpack(self._take(scalar.size))[0]

    def _text(self, wanted: bool) -> Generator[int, None, str | None]:
        yield 8
        length: int = _U64.unpack(self._take(8))[0]
        if length > LONGEST_STRING:
            self._fail(f"a string of {length} bytes; {LONGEST_STRING} are possible", expected=LONGEST_STRING,
                       measured=length)  # fmt: skip
        if not wanted or length > _KEPT_STRING:
            self._pass_over(length)
            yield 0
            return None
        yield length
        return self._take(length).decode(errors="replace")

    def _array(self, wanted: bool) -> Generator[int, None, Any]:
        """Its elements where they are asked for and few; else `_Count`."""
        yield 12
        kind = self._kind(_U32.unpack(self._take(4))[0])
        count: int = _U64.unpack(self._take(8))[0]
        if count > MOST_ELEMENTS:
            self._fail(f"an array of {count} elements; {MOST_ELEMENTS} are possible", expected=MOST_ELEMENTS,
                       measured=count)  # fmt: skip
        if kind is _Kind.ARRAY:
            self._fail("an array of arrays, which no model has")
        if kind is _Kind.STRING:
            yield from self._pass_over_strings(count)
            return _Count(count)
        scalar = _SCALARS[kind]
        if not wanted or count > _KEPT_ELEMENTS:
            self._pass_over(count * scalar.size)
            yield 0
            return _Count(count)
        yield count * scalar.size
        return [value for (value,) in scalar.iter_unpack(self._take(count * scalar.size))]

    def _pass_over_strings(self, count: int) -> Generator[int, None, None]:
        """Vocabularies: hundreds of thousands of short strings, passed over as many at a time as are here."""
        left = count
        while left:
            at, size = 0, len(self._buffer)
            while left and at + 8 <= size:
                length: int = _U64.unpack_from(self._buffer, at)[0]
                if length > LONGEST_TOKEN:
                    self._fail(f"a string of {length} bytes in an array; {LONGEST_TOKEN} are possible",
                               expected=LONGEST_TOKEN, measured=length)  # fmt: skip
                if at + 8 + length > size:
                    break
                at += 8 + length
                left -= 1
            self._pass_over(at)
            if left:
                needed = 8
                if len(self._buffer) >= 8:
                    needed += _U64.unpack_from(self._buffer, 0)[0]
                yield needed

    def _alignment(self, metadata: _Metadata) -> int:
        alignment = metadata.number("general.alignment", 32)
        if not 0 < alignment <= _LARGEST_ALIGNMENT or alignment & (alignment - 1):
            self._fail(f"general.alignment is {alignment}, which is no power of two up to {_LARGEST_ALIGNMENT}",
                       measured=alignment)  # fmt: skip
        return alignment

    def _tensors(self, count: int, alignment: int) -> Generator[int, None, tuple[int, int, dict[str, int]]]:
        """Bytes of all tensors' data with and without the last padding, and how many tensors have each type."""
        names: set[bytes] = set()
        types: dict[str, int] = {}
        total = last = 0
        for _ in range(count):
            name = yield from self._string("a tensor's name", LONGEST_NAME)
            if name in names:
                self._fail(f"the tensor {name.decode(errors='replace')} comes twice")
            names.add(name)
            yield 4
            rank: int = _U32.unpack(self._take(4))[0]
            shown = name.decode(errors="replace")
            if not 1 <= rank <= 4:
                self._fail(f"tensor {shown} has {rank} dimensions; 1 to 4 are possible", measured=rank)
            yield 8 * rank + 12
            dimensions = struct.unpack(f"<{rank}Q", self._take(8 * rank))
            number, offset = struct.unpack("<IQ", self._take(12))
            if number not in _TENSOR_TYPES:
                self._fail(f"tensor {shown} has the type {number}, which is not known here", measured=number)
            kind, block, block_bytes = _TENSOR_TYPES[number]
            if offset != total:
                self._fail(f"tensor {shown} should begin at {total} of the data, the file says {offset}",
                           expected=total, measured=offset)  # fmt: skip
            size = self._size(shown, dimensions, block, block_bytes)
            last = total + size
            total += -(-size // alignment) * alignment
            if total > _LARGEST_TENSOR:
                self._fail(f"the tensors up to {shown} have {total} bytes, which no file has", measured=total)
            types[kind] = types.get(kind, 0) + 1
        return total, last, types

    def _size(self, name: str, dimensions: tuple[int, ...], block: int, block_bytes: int) -> int:
        elements = 1
        for dimension in dimensions:
            elements *= dimension
            if not 0 < elements <= _LARGEST_TENSOR:
                self._fail(f"tensor {name} has the dimensions {dimensions}, which cannot be")
        if dimensions[0] % block:
            self._fail(f"tensor {name} has rows of {dimensions[0]} numbers, which blocks of {block} do not divide",
                       expected=block, measured=dimensions[0])  # fmt: skip
        return elements // block * block_bytes

    def _header(
        self, metadata: _Metadata, version: int, types: dict[str, int], total: int, offset: int, end: int
    ) -> Header:
        architecture = metadata.text("general.architecture")
        if not architecture:
            self._fail("the key general.architecture is missing: nobody could load this file",
                       expected="general.architecture")  # fmt: skip
        if (parts := metadata.number("split.count", 0)) > 1:
            self._fail(f"this is one of {parts} parts of a model: join them first (llama-gguf-split --merge)",
                       expected=1, measured=parts)  # fmt: skip
        layers, context, width = (
            self._needed(metadata, f"{architecture}.{name}") for name in ("block_count", "context_length",
                                                                          "embedding_length")
        )  # fmt: skip
        nobody: list[int] = []
        heads = metadata.per_layer(f"{architecture}.attention.head_count", layers, nobody)
        kv_heads = metadata.per_layer(f"{architecture}.attention.head_count_kv", layers, heads)
        if any(not 0 <= count <= 65_536 for count in [*heads, *kv_heads]):
            self._fail("a head count is not between 0 and 65536")
        most_heads = max([0, *heads])
        per_head = width // most_heads if most_heads else 0
        return Header(
            version=version, architecture=architecture, name=metadata.text("general.name") or "", layers=layers,
            context_tokens=context, embedding_length=width, heads=most_heads, kv_heads=tuple(kv_heads),
            key_length=self._length(metadata, f"{architecture}.attention.key_length", per_head),
            value_length=self._length(metadata, f"{architecture}.attention.value_length", per_head),
            vocabulary=metadata.count("tokenizer.ggml.tokens") or metadata.number(f"{architecture}.vocab_size", 0),
            file_type=metadata.number("general.file_type", -1) if metadata.has("general.file_type") else None,
            tensors=sum(types.values()), tensor_types=types, weights_bytes=total, data_offset=offset, data_end=end,
        )  # fmt: skip

    def _needed(self, metadata: _Metadata, key: str) -> int:
        value = metadata.number(key, 0)
        if not 0 < value <= 100_000_000:
            self._fail(f"the key {key} is {value if metadata.has(key) else 'missing'}: a positive number belongs there",
                       expected=key, measured=value)  # fmt: skip
        return value

    def _length(self, metadata: _Metadata, key: str, otherwise: int) -> int:
        value = metadata.number(key, otherwise)
        if not 0 <= value <= 1_000_000:
            self._fail(f"the key {key} is {value}, which cannot be", measured=value)
        return value


class _Count(int):
    """How many elements an array had that was not kept."""


class _Metadata:
    """The values that were kept, by key."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}

    def add(self, key: str, value: Any) -> bool:
        """False: there is one already, or there are enough."""
        if key in self._values or len(self._values) >= _KEPT_KEYS:
            return False
        self._values[key] = value
        return True

    def has(self, key: str) -> bool:
        return key in self._values

    def text(self, key: str) -> str | None:
        value = self._values.get(key)
        return value if isinstance(value, str) else None

    def number(self, key: str, otherwise: int) -> int:
        """A whole number; what is something else counts as -1, which no key may be."""
        value = self._values.get(key, otherwise)
        return value if isinstance(value, int) and not isinstance(value, _Count) else -1

    def count(self, key: str) -> int:
        """How many elements an array has."""
        value = self._values.get(key)
        return int(value) if isinstance(value, _Count) else len(value) if isinstance(value, list) else 0

    def per_layer(self, key: str, layers: int, otherwise: list[int]) -> list[int]:
        """A number for each layer, from one for all or an array; one that is no number is -1."""
        value = self._values.get(key)
        if value is None:
            return otherwise
        if isinstance(value, list):
            return [one if isinstance(one, int) else -1 for one in value][:layers]
        return [value if isinstance(value, int) else -1] * min(layers, _KEPT_ELEMENTS)


_ENDINGS = (
    b".block_count", b".context_length", b".embedding_length", b".attention.head_count", b".attention.head_count_kv",
    b".attention.key_length", b".attention.value_length", b".vocab_size",
)  # fmt: skip
_NAMES = frozenset(
    {b"general.architecture", b"general.name", b"general.alignment", b"general.file_type", b"split.count",
     b"tokenizer.ggml.tokens"}
)  # fmt: skip


def _wanted(key: bytes) -> bool:
    """Whether a key's value is kept. Of hostile files too: only what ends like this, and short."""
    return key in _NAMES or (len(key) <= _KEPT_KEY and key.endswith(_ENDINGS))


def _truncated(needed: int, there: int) -> GgufError:
    return GgufError(
        f"the tensors need {needed} bytes of file, {there} are there: the file is truncated",
        offset=there, expected=needed, measured=there,
    )  # fmt: skip
