"""An upload on its way to disk: taken apart, hashed, compared with what its headers promise; never whole in memory."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from engine.sandbox.spaces import checksums
from engine.sandbox.spaces.blobs import BLOCK_BYTES, Blob, Blobs
from engine.sandbox.spaces.checksums import Checksum
from engine.sandbox.spaces.chunks import SIGNED_TRAILER, STREAMING, ChunkDecoder
from engine.sandbox.spaces.errors import S3Error
from engine.sandbox.spaces.signature import UNSIGNED, Signer

LARGEST_PUT_BYTES = 5 << 30
LARGEST_DOCUMENT_BYTES = 4 << 20
"""A list of 10,000 parts or 1,000 long keys is below it."""

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


@dataclass(frozen=True)
class Stored:
    """An upload that is on disk.

    Attributes:
        etag: its MD5, hexadecimal.
        checksums: algorithm → base64 text, of those the client sent.
    """

    blob: Blob
    etag: str
    checksums: Mapping[str, str] = field(default_factory=dict)


class Body:
    """The body of one request.

    Attributes:
        is_begun: somebody has asked for it; until then a client that waits for "100 Continue" sends nothing.

    Args:
        payload: `x-amz-content-sha256`, "" for an anonymous request.
        signer: of the request, for the chunks that are signed too.
    """

    def __init__(self, receive: Receive, headers: Mapping[str, str], payload: str, signer: Signer | None) -> None:
        self.is_begun = False
        self._receive = receive
        self._headers = headers
        self._payload = payload
        self._decoder = self._make_decoder(signer)
        self._expected = self._stated_length()

    def _make_decoder(self, signer: Signer | None) -> ChunkDecoder | None:
        if self._payload == STREAMING[0]:
            return ChunkDecoder(None)
        if self._payload in (STREAMING[1], SIGNED_TRAILER):
            return ChunkDecoder(signer)
        if self._payload.startswith("STREAMING-"):
            raise S3Error("NotImplemented", f"x-amz-content-sha256 {self._payload} is not supported")
        return None

    def _stated_length(self) -> int | None:
        name = "content-length" if self._decoder is None else "x-amz-decoded-content-length"
        text = self._headers.get(name, "")
        return int(text) if text.isascii() and text.isdigit() else None

    async def pieces(self) -> AsyncIterator[bytes]:
        """The data without what surrounds it.

        Raises:
            S3Error: the client broke off, or promised another length.
        """
        size = 0
        async for raw in self._raw():
            for piece in self._decoder.feed(raw) if self._decoder else (raw,):
                size += len(piece)
                if size > LARGEST_PUT_BYTES:
                    raise S3Error("EntityTooLarge")
                yield piece
        if self._decoder is not None and not self._decoder.is_complete:
            raise S3Error("IncompleteBody", "The body ends before its last chunk.")
        if self._expected is not None and size != self._expected:
            raise S3Error("IncompleteBody")

    async def _raw(self) -> AsyncIterator[bytes]:
        self.is_begun = True
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise S3Error("IncompleteBody")
            if piece := message.get("body", b""):
                yield piece
            if not message.get("more_body"):
                return

    async def document(self) -> bytes:
        """The whole body of a request that is a document and not an object."""
        whole = bytearray()
        async for piece in self.pieces():
            whole += piece
            if len(whole) > LARGEST_DOCUMENT_BYTES:
                raise S3Error("InvalidRequest", f"The body is over {LARGEST_DOCUMENT_BYTES} bytes.")
        sums = _Sums(self._headers, self._payload)
        sums.update(bytes(whole))
        sums.check(self._trailers())
        return bytes(whole)

    async def store(self, blobs: Blobs) -> Stored:
        """Write the body to a new file.

        Raises:
            S3Error: it is not what its headers say; nothing is left on disk.
        """
        if self._expected is None:
            raise S3Error("MissingContentLength")
        if self._expected > LARGEST_PUT_BYTES:
            raise S3Error("EntityTooLarge")
        name, path = blobs.new()
        sums = _Sums(self._headers, self._payload)
        try:
            with path.open("wb", buffering=0) as file:
                size = await self._write(file, sums, blobs)
            sums.check(self._trailers())
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return Stored(Blob(name, size), sums.md5.hexdigest(), sums.told(self._trailers()))

    async def _write(self, file: BinaryIO, sums: _Sums, blobs: Blobs) -> int:
        size, block = 0, bytearray()

        def put(data: bytes) -> None:
            sums.update(data)
            file.write(data)

        async for piece in self.pieces():
            size += len(piece)
            block += piece
            if len(block) >= BLOCK_BYTES:
                full, block = bytes(block), bytearray()
                await blobs.run(put, full)
        put(bytes(block))
        return size

    def _trailers(self) -> Mapping[str, str]:
        return self._decoder.trailers if self._decoder else {}


class _Sums:
    """Everything that has to be hashed on the way."""

    def __init__(self, headers: Mapping[str, str], payload: str) -> None:
        self._headers = headers
        self._sha256 = hashlib.sha256() if payload and payload != UNSIGNED and "STREAMING" not in payload else None
        self._payload = payload
        self.md5 = hashlib.md5(usedforsecurity=False)
        trailing = headers.get("x-amz-trailer", "").lower().removeprefix(checksums.PREFIX)
        names = {*checksums.named(headers), *([trailing] if trailing in checksums.ALGORITHMS else [])}
        self._checksums: dict[str, Checksum] = {name: checksums.ALGORITHMS[name]() for name in names}

    def update(self, data: bytes) -> None:
        self.md5.update(data)
        if self._sha256:
            self._sha256.update(data)
        for checksum in self._checksums.values():
            checksum.update(data)

    def check(self, trailers: Mapping[str, str]) -> None:
        """Compare with what was promised.

        Raises:
            S3Error: it is something else.
        """
        if self._sha256 and not hmac.compare_digest(self._sha256.hexdigest().encode(), self._payload.encode()):
            raise S3Error("XAmzContentSHA256Mismatch")
        if promised := self._headers.get("content-md5"):
            try:
                digest = b64decode(promised, validate=True)
            except ValueError:
                digest = b""
            if len(digest) != 16:
                raise S3Error("InvalidDigest", "The Content-MD5 you specified is not valid.")
            if digest != self.md5.digest():
                raise S3Error("BadDigest", "The Content-MD5 you specified did not match what we received.")
        for name, value in self._promised(trailers).items():
            if checksums.text(self._checksums[name]) != value:
                raise S3Error("BadDigest", f"The {name.upper()} you specified did not match the calculated checksum.")

    def told(self, trailers: Mapping[str, str]) -> dict[str, str]:
        """The checksums to keep."""
        return self._promised(trailers)

    def _promised(self, trailers: Mapping[str, str]) -> dict[str, str]:
        found = {**checksums.named(self._headers), **checksums.named(trailers)}
        return {name: value for name, value in found.items() if name in self._checksums}


def composite(values: list[str], algorithm: str) -> str:
    """The checksum of a multipart object: that of its parts' checksums, and how many there are."""
    whole = checksums.ALGORITHMS[algorithm]()
    for value in values:
        whole.update(b64decode(value))
    return f"{b64encode(whole.digest()).decode()}-{len(values)}"
