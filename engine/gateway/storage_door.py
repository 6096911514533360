"""The byte path of stored objects on the public port: signed PUTs to disk, reads by signed and public URLs.

Constant memory whatever the size. Knows no accounts: what a URL allows was decided when it was signed.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

import aiohttp
import structlog
from sqlalchemy.exc import OperationalError
from yarl import URL

from engine.gateway import asgi
from engine.gateway.asgi import Receive, Scope, Send
from engine.gateway.file_threads import run_whole
from engine.model.clock import Clock
from engine.model.errors import Conflict, Forbidden, NotFound, Unavailable
from engine.storage.blobs import CHUNK_BYTES, BlobFolder, BlobWriter
from engine.storage.egress import EgressCounter
from engine.storage.reading import Readable, Reader, Stretch, headers_of, stretch_of
from engine.storage.receiving import Arrival, Receiver, require_no_more
from engine.storage.s3_urls import S3Place, presign
from engine.storage.signing import PUBLIC_PREFIX, SIGNED_PREFIX, Grant, UrlSigner, Use

IDLE_SECONDS = 60.0
"""A client that sends nothing for so long is gone."""

REMOTE_TTL = timedelta(minutes=15)
FLUSH_SECONDS = 1.0
SEND_BYTES = 256 * 1024
SWEEP_SECONDS = 600.0

_THREADS = 8
"""Of their own: a slow disk must not take the threads that revocations need."""

T = TypeVar("T")

_log = structlog.get_logger("gateway.storage")


class Source(Protocol):
    """Where the bytes of objects lie."""

    def path(self, what: Readable) -> Path | None:
        """A file of this machine; None: they lie elsewhere."""
        ...

    def url(self, what: Readable) -> str:
        """Where elsewhere."""
        ...


class StorageDoor:
    """Answers everything below `/v1/storage/signed/` and `/v1/storage/public/`."""

    def __init__(
        self, signer: UrlSigner, receiver: Receiver, reader: Reader, source: Source, egress: EgressCounter,
        clock: Clock, sweep: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self._signer = signer
        self._receiver = receiver
        self._reader = reader
        self._source = source
        self._egress = egress
        self._clock = clock
        self._sweep = sweep
        self._threads = ThreadPoolExecutor(_THREADS, "storage")
        self._remote: aiohttp.ClientSession | None = None
        self._busy: set[tuple[str, int]] = set()

    @staticmethod
    def serves(path: str) -> bool:
        return path.startswith((SIGNED_PREFIX, PUBLIC_PREFIX))

    async def run(self) -> None:
        """Write down what was sent, and sweep what uploads left, until cancelled."""
        swept_at: float | None = None
        while True:
            await self._in_thread(self._egress.flush)
            if swept_at is None or self._clock.monotonic() - swept_at >= SWEEP_SECONDS:
                swept_at = self._clock.monotonic()
                try:
                    await self._in_thread(self._sweep)
                except Exception:  # noqa: BLE001  (the loop's edge: what cannot be swept now must not stop the counting)
                    _log.exception("what uploads left could not be swept")
            await self._clock.sleep(FLUSH_SECONDS)

    async def close(self) -> None:
        """Write down the rest."""
        await self._in_thread(self._egress.flush)
        if self._remote:
            await self._remote.close()
        self._threads.shutdown(wait=False)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request.

        Raises:
            StackyardError: refused, before an answer began.
            ClientGone: the client left first.
        """
        try:
            await self._answer(scope, receive, send)
        except OperationalError as err:
            _log.error("the database does not answer", error=str(err.orig))
            raise Unavailable("the database does not answer; try again in a few seconds") from err
        except OSError as err:
            _log.error("the storage disk does not work", error=str(err))
            raise Unavailable("the storage disk does not work: tell the operator") from err

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        if path.startswith(PUBLIC_PREFIX):
            if method not in ("GET", "HEAD"):
                raise Forbidden("public URLs are for reading: ask for an upload with `POST /v1/storage/upload`")
            return await self._read(await self._in_thread(self._reader.public, path), scope, receive, send)
        query = scope["query_string"].decode("latin-1")
        grant = self._signer.check(method, path, query, self._clock.now())
        if grant.use in (Use.PUT, Use.PART):
            return await self._write(grant, scope, receive, send)
        await self._read(await self._in_thread(self._reader.signed, grant), scope, receive, send)

    async def _write(self, grant: Grant, scope: Scope, receive: Receive, send: Send) -> None:
        with self._alone(grant):
            announced = asgi.header(scope, b"content-length")
            arrival, writer = await self._in_thread(
                self._receiver.begin, grant, int(announced) if announced is not None else None
            )
            kept = False
            try:
                await self._store(arrival, writer, receive)
                await self._in_thread(self._receiver.end, arrival, writer)
                kept = True
            except TimeoutError:
                body = asgi.error_body("request_timeout", f"nothing was sent for {IDLE_SECONDS:g} s: begin again")
                return await asgi.send_json(send, 408, body, [(b"connection", b"close")])
            finally:
                if not kept:
                    await self._in_thread(self._receiver.discard, arrival, writer)
        facts = {"sizeBytes": writer.written, "sha256": writer.sha256}
        await asgi.send_json(send, 200, facts, [(b"etag", f'"{writer.sha256}"'.encode())])

    @contextlib.contextmanager
    def _alone(self, grant: Grant) -> Iterator[None]:
        """Two at once would write over each other's bytes of one part; whole objects have a file each."""
        key = (grant.subject, grant.part)
        if grant.use is Use.PART:
            if key in self._busy:
                raise Conflict(f"part {grant.part} is being uploaded at this moment: wait for that to end")
            self._busy.add(key)
        try:
            yield
        finally:
            self._busy.discard(key)

    async def _store(self, arrival: Arrival, writer: BlobWriter, receive: Receive) -> None:
        """Write the body as it comes, in chunks; the socket waits for the disk."""
        waiting, more = bytearray(), True
        while more:
            async with asyncio.timeout(IDLE_SECONDS):
                chunk, more = await asgi.next_chunk(receive)
            waiting += chunk
            require_no_more(writer.written + len(waiting), arrival)
            if len(waiting) >= CHUNK_BYTES or (waiting and not more):
                await self._in_thread(writer.write, waiting)
                waiting = bytearray()

    async def _read(self, what: Readable, scope: Scope, receive: Receive, send: Send) -> None:
        texts = {name: value.decode("latin-1") for name, value in scope["headers"]}
        stretch = stretch_of(
            what, range_=texts.get(b"range"), if_range=texts.get(b"if-range"), if_none_match=texts.get(b"if-none-match")
        )
        more = True
        while more:  # a body means nothing here; after it comes the disconnect
            _, more = await asgi.next_chunk(receive)
        await asgi.while_connected(receive, self._send(what, stretch, scope["method"], send))

    async def _send(self, what: Readable, stretch: Stretch, method: str, send: Send) -> None:
        has_body = method == "GET" and stretch.status in (200, 206) and stretch.length > 0
        chunks = await self._open(what, stretch) if has_body else None
        try:
            start = {"type": "http.response.start", "status": stretch.status, "headers": headers_of(what, stretch)}
            await send(start)
            if chunks is not None:
                async for chunk in chunks:
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                    if what.is_metered:
                        self._egress.add(what, len(chunk))
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            if chunks is not None:
                await chunks.aclose()

    async def _open(self, what: Readable, stretch: Stretch) -> AsyncGenerator[bytes, None]:
        """The bytes of a stretch, in chunks; their source answered.

        Raises:
            NotFound: the bytes are gone though the object is not.
            Unavailable: the S3 server does not answer.
        """
        path = self._source.path(what)
        if path is None:
            return self._remote_chunks(await self._ask(what, stretch), stretch.length)
        try:
            file: IO[bytes] = await self._in_thread(_open, path)
        except FileNotFoundError as err:
            _log.error("the bytes of an object are gone", object=what.object_id)
            raise NotFound(f"the bytes of {what.object_id} are gone: tell the operator") from err
        return self._file_chunks(file, stretch)

    async def _file_chunks(self, file: IO[bytes], stretch: Stretch) -> AsyncGenerator[bytes, None]:
        try:
            file.seek(stretch.start)
            left = stretch.length
            while left:
                chunk = await self._in_thread(file.read, min(SEND_BYTES, left))
                if not chunk:
                    raise aiohttp.ClientPayloadError("the file is shorter than it was")
                left -= len(chunk)
                yield chunk
        finally:
            file.close()

    async def _ask(self, what: Readable, stretch: Stretch) -> aiohttp.ClientResponse:
        if self._remote is None:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=IDLE_SECONDS)
            self._remote = aiohttp.ClientSession(timeout=timeout, auto_decompress=False)
        last = stretch.start + stretch.length - 1
        try:
            answer = await self._remote.get(
                URL(self._source.url(what), encoded=True), headers={"range": f"bytes={stretch.start}-{last}"}
            )
        except (aiohttp.ClientError, TimeoutError) as err:
            raise Unavailable("the S3 server does not answer: try again in a few seconds") from err
        if answer.status in (200, 206):
            return answer
        answer.close()
        if answer.status == 404:
            raise NotFound(f"the bytes of {what.object_id} are gone from the S3 server")
        raise Unavailable(f"the S3 server answered {answer.status}: its keys or its state are wrong, see the log")

    async def _remote_chunks(self, answer: aiohttp.ClientResponse, length: int) -> AsyncGenerator[bytes, None]:
        left = length
        try:
            async for chunk in answer.content.iter_any():
                yield chunk[:left]
                left -= min(left, len(chunk))
                if not left:
                    return
        finally:
            answer.close()

    async def _in_thread(self, function: Callable[..., T], *args: Any) -> T:
        return await run_whole(self._threads, function, *args)


def _open(path: Path) -> IO[bytes]:
    return path.open("rb", buffering=0)


class DiskSource:
    """Bytes that are files of this machine."""

    def __init__(self, blobs: BlobFolder) -> None:
        self._blobs = blobs

    def path(self, what: Readable) -> Path | None:
        return self._blobs.path(what.location)

    def url(self, what: Readable) -> str:
        raise NotFound(f"{what.object_id} is a file")


class S3Source:
    """Bytes that an S3 server keeps: public reads go through here all the same, to be counted."""

    def __init__(self, place: S3Place, clock: Clock) -> None:
        self._place = place
        self._clock = clock

    def path(self, what: Readable) -> Path | None:
        return None

    def url(self, what: Readable) -> str:
        now = self._clock.now()
        bucket = self._place.bucket(what.org_id)
        return presign(self._place, "GET", bucket, what.location, expires_at=now + REMOTE_TTL, now=now)
