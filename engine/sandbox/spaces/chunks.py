"""`aws-chunked` bodies: sizes, signatures and trailing headers around the data. Pure: pieces in, data out.

Source: "Signature calculations for the authorization header: transferring a payload in multiple chunks", Amazon S3 API.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator

from engine.sandbox.spaces.errors import S3Error
from engine.sandbox.spaces.signature import Signer

STREAMING = ("STREAMING-UNSIGNED-PAYLOAD-TRAILER", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")
SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
LONGEST_LINE_BYTES = 16 << 10


class ChunkDecoder:
    """Takes a body apart as it comes.

    Attributes:
        trailers: lower-case names and values, once `is_complete`.
    """

    def __init__(self, signer: Signer | None) -> None:
        self.trailers: dict[str, str] = {}
        self.is_complete = False
        self._signer = signer
        self._previous = signer.signature.value if signer else ""
        self._buffer = bytearray()
        self._left = 0
        self._in_chunk = self._at_end = False
        self._stated = ""
        self._sha256 = hashlib.sha256()
        self._trailer_lines = b""

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The data in a piece of the body.

        Raises:
            S3Error: sizes or signatures are wrong.
        """
        self._buffer += piece
        while not self.is_complete:
            if self._left:
                if not self._buffer:
                    return
                yield self._take()
            elif (line := self._line()) is None:
                return
            elif self._in_chunk:
                self._end_chunk(line)
            elif self._at_end:
                self._read_trailer(line)
            else:
                self._begin_chunk(line)

    def _take(self) -> bytes:
        data = bytes(self._buffer[: self._left])
        del self._buffer[: len(data)]
        self._left -= len(data)
        if self._signer:
            self._sha256.update(data)
        return data

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            if len(self._buffer) > LONGEST_LINE_BYTES:
                raise S3Error("InvalidRequest", "a chunk's header line is too long")
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 2]
        return line

    def _begin_chunk(self, line: bytes) -> None:
        size, _, extension = line.decode("latin-1").partition(";")
        try:
            self._left = int(size.strip(), 16)
        except ValueError:
            raise S3Error("InvalidRequest", f"{size[:20]!r} is no chunk size") from None
        self._stated = extension.strip().removeprefix("chunk-signature=")
        if self._left:
            self._in_chunk = True
        else:
            self._check_chunk()
            self._at_end = True

    def _end_chunk(self, line: bytes) -> None:
        if line:
            raise S3Error("InvalidRequest", "a chunk is longer than its size says")
        self._check_chunk()
        self._in_chunk = False

    def _check_chunk(self) -> None:
        if self._signer is None:
            return
        right = self._signer.chunk(self._previous, self._sha256.hexdigest())
        if not hmac.compare_digest(right.encode(), self._stated.encode()):
            raise S3Error("SignatureDoesNotMatch", "the signature of a chunk does not match")
        self._previous = right
        self._sha256 = hashlib.sha256()

    def _read_trailer(self, line: bytes) -> None:
        if not line:
            self.is_complete = True
            return
        name, _, value = line.decode("latin-1").partition(":")
        name, value = name.strip().lower(), value.strip()
        if name == "x-amz-trailer-signature" and self._signer:
            right = self._signer.trailer(self._previous, hashlib.sha256(self._trailer_lines).hexdigest())
            if not hmac.compare_digest(right.encode(), value.encode()):
                raise S3Error("SignatureDoesNotMatch", "the signature of the trailing headers does not match")
            self.trailers["x-amz-trailer-signature"] = value
            return
        self._trailer_lines += f"{name}:{value}\n".encode()
        self.trailers[name] = value
