"""Connections to replicas: HTTP/1.1 over TLS with a pinned certificate, kept and used again.

Chooses no replica, tries nothing twice and knows nothing of what it carries.
"""

from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl
from collections import deque
from collections.abc import Callable
from typing import cast
from urllib.parse import urlsplit

import httptools

from engine.gateway.asgi import Headers

CONNECT_SECONDS = 5.0
"""A replica in the same region answers a SYN in milliseconds; more means it is gone."""

HANDSHAKE_SECONDS = 10.0
IDLE_SECONDS = 50.0
"""Kept connections are used again for so long; agents close them after 75."""

_SWEEP_SECONDS = 15.0
_UNREAD_BYTES = 128 * 1024
"""A replica is told to wait when so much of its answer was not passed on: its client reads slowly."""

_PIECE_BYTES = 128 * 1024
"""Long bodies are encrypted piece by piece as the network takes them, so that they lie in memory once."""


class UpstreamError(Exception):
    """A replica did not answer, or not to the end. `reason` is a stable word for metrics and clients."""

    reason = "broke_off"


class NotReached(UpstreamError):
    """No connection came about; the replica has seen nothing of the request."""

    reason = "no_connection"


class WrongCertificate(UpstreamError):
    """Somebody else answers there; nothing was sent to them."""

    reason = "wrong_certificate"


class BrokeOff(UpstreamError):
    """The connection ended before the answer did."""


class BadAnswer(UpstreamError):
    """What came is not HTTP."""

    reason = "bad_answer"


class Answer:
    """One answer as it comes.

    Attributes:
        status: 0 until its head came.
        headers: as received, names in lower case.
    """

    __slots__ = ("_connection", "_failure", "_parts", "_unread", "_waiter", "headers", "is_whole", "status")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._parts: deque[bytes] = deque()
        self._unread = 0
        self._waiter: asyncio.Future[None] | None = None
        self._failure: UpstreamError | None = None
        self.status = 0
        self.headers: Headers = []
        self.is_whole = False

    def header(self, name: bytes) -> bytes:
        """The first value; empty when there is none."""
        for key, value in self.headers:
            if key == name:
                return value
        return b""

    async def head(self) -> None:
        """Wait for status and headers.

        Raises:
            UpstreamError: they do not come.
        """
        while not self.status:
            if self._failure:
                raise self._failure
            await self._news()

    async def part(self) -> bytes:
        """Everything that came since the last call, at least one byte; empty: that was all.

        Raises:
            UpstreamError: the rest does not come.
        """
        while not self._parts:
            if self.is_whole:
                return b""
            if self._failure:
                raise self._failure
            await self._news()
        part = self._parts.popleft() if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        if self._unread > _UNREAD_BYTES:
            self._connection.resume_reading()
        self._unread = 0
        return part

    def close(self) -> None:
        """Give the connection back, or break it off if the answer is not whole: the replica stops working then."""
        self._connection.end(self)

    def take(self, part: bytes) -> None:
        """A part came."""
        self._parts.append(part)
        was, self._unread = self._unread, self._unread + len(part)
        if was <= _UNREAD_BYTES < self._unread:
            self._connection.pause_reading()
        self.wake()

    def fail(self, failure: UpstreamError) -> None:
        self._failure = self._failure or failure
        self.wake()

    def wake(self) -> None:
        if self._waiter is not None:
            if not self._waiter.done():
                self._waiter.set_result(None)
            self._waiter = None

    @property
    def is_read(self) -> bool:
        """Whether all of it came and was taken."""
        return self.is_whole and not self._parts

    @property
    def has_failed(self) -> bool:
        return self._failure is not None

    async def _news(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter


class Connection(asyncio.Protocol):
    """One connection to one replica; carries one request at a time."""

    def __init__(self, give_back: Callable[[Connection], None]) -> None:
        self._give_back = give_back
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._answer: Answer | None = None
        self._headers: Headers = []
        self._is_sent = True
        self._is_kept = False
        self._has_room = asyncio.Event()
        self._has_room.set()
        self.is_open = False
        self.idle_since = 0.0

    def begin(self) -> Answer:
        """The place for the next answer."""
        self._answer = Answer(self)
        self._is_sent = False
        return self._answer

    async def send(self, head: bytes, body: bytes | bytearray) -> None:
        """Send a request; stops when the replica answers without reading all of it."""
        answer, transport = self._answer, self._transport
        if answer is None or transport is None or transport.is_closing():
            raise BrokeOff("the connection was closed")
        if len(body) <= _PIECE_BYTES:
            transport.write(head + body)
            self._is_sent = True
            return
        transport.write(head)
        whole = memoryview(body)
        for start in range(0, len(whole), _PIECE_BYTES):
            await self._has_room.wait()
            if answer.status or answer.has_failed or transport.is_closing():
                return
            transport.write(whole[start : start + _PIECE_BYTES])
        self._is_sent = True

    def end(self, answer: Answer) -> None:
        """The answer was read, or nobody wants it any more."""
        if self._answer is not answer:
            return
        self._answer = None
        if answer.is_whole and self._is_sent and self.is_open and self._is_kept:
            self._give_back(self)
        else:
            self.abort()

    def abort(self) -> None:
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def certificate_digest(self) -> bytes:
        """SHA-256 of the certificate the other side showed."""
        tls = cast("asyncio.Transport", self._transport).get_extra_info("ssl_object")
        shown = tls.getpeercert(binary_form=True) if tls else None
        return hashlib.sha256(shown or b"").digest()

    def pause_reading(self) -> None:
        if self._transport is not None and self.is_open:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None and self.is_open:
            self._transport.resume_reading()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.is_open = True

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._has_room.set()
        answer = self._answer
        if answer is None or answer.is_whole:
            return
        if answer.status and exc is None and not _is_delimited(answer.headers):
            answer.is_whole = True  # HTTP/1.0: the end of the connection is the end of the answer
            answer.wake()
        else:
            answer.fail(BrokeOff(str(exc) if exc else "the connection was closed"))

    def data_received(self, data: bytes) -> None:
        if self._answer is None:  # nobody asked
            self.abort()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as err:
            self._answer.fail(BadAnswer(f"did not answer in HTTP ({err})"))
            self.abort()

    def pause_writing(self) -> None:
        self._has_room.clear()

    def resume_writing(self) -> None:
        self._has_room.set()

    # httptools' callbacks

    def on_message_begin(self) -> None:
        self._headers = []
        if self._answer is None or self._answer.is_whole:  # a second answer to one request
            self.is_open = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        status, answer = self._parser.get_status_code(), self._answer
        if status >= 200 and answer is not None and not answer.is_whole:  # others only announce one
            answer.status, answer.headers = status, self._headers
            answer.wake()

    def on_body(self, body: bytes) -> None:
        if self._answer is not None and not self._answer.is_whole:
            self._answer.take(body)

    def on_message_complete(self) -> None:
        if self._answer is not None and self._answer.status:
            self._is_kept = self._parser.should_keep_alive()  # known at this moment only
            self._answer.is_whole = True
            self._answer.wake()


class Pool:
    """Connections by replica and certificate. `open` it inside the event loop that uses it."""

    def __init__(self) -> None:
        self._idle: dict[tuple[str, str], list[Connection]] = {}
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._tls.check_hostname = False
        self._tls.verify_mode = ssl.CERT_NONE  # the pin is checked instead
        self._sweeper: asyncio.TimerHandle | None = None
        self._is_open = False

    def open(self) -> None:
        self._is_open = True
        self._sweep()

    def close(self) -> None:
        self._is_open = False
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connections in self._idle.values():
            for connection in connections:
                connection.abort()
        self._idle.clear()

    async def request(self, endpoint: str, fingerprint: str, head: bytes, body: bytes | bytearray) -> Answer:
        """Send a request and wait for the head of its answer; `close` the answer in any case.

        Args:
            endpoint: `https://HOST:PORT`; `http://` only for tests and measurements, without a certificate.
            fingerprint: SHA-256 of the replica's certificate, hexadecimal.
            head: request line and headers, with the empty line.

        Raises:
            UpstreamError: no answer began.
        """
        key = (endpoint, fingerprint)
        connection = self._take(key) or await self._connect(key)
        answer = connection.begin()
        try:
            await connection.send(head, body)
            await answer.head()
        except BaseException:
            answer.close()
            raise
        return answer

    def _take(self, key: tuple[str, str]) -> Connection | None:
        kept = self._idle.get(key)
        while kept:
            connection = kept.pop()
            if connection.is_open:
                return connection
        return None

    async def _connect(self, key: tuple[str, str]) -> Connection:
        endpoint, fingerprint = key
        loop, place = asyncio.get_running_loop(), urlsplit(endpoint)
        encrypted = place.scheme == "https"

        def give_back(connection: Connection) -> None:
            if not self._is_open:
                connection.abort()
                return
            connection.idle_since = loop.time()
            self._idle.setdefault(key, []).append(connection)

        try:
            made = await _dial(place.hostname or "", place.port or (443 if encrypted else 80))
            try:
                _, connection = await loop.create_connection(
                    lambda: Connection(give_back), sock=made, ssl=self._tls if encrypted else None,
                    server_hostname=place.hostname if encrypted else None,
                    ssl_handshake_timeout=HANDSHAKE_SECONDS if encrypted else None,
                )  # fmt: skip
            except BaseException:
                made.close()
                raise
        except (OSError, TimeoutError) as err:
            raise NotReached(f"cannot be reached ({err or type(err).__name__})") from err
        if encrypted and connection.certificate_digest() != bytes.fromhex(fingerprint):
            connection.abort()
            raise WrongCertificate("shows another certificate")
        return connection

    def _sweep(self) -> None:
        """Close what nobody used for long."""
        loop = asyncio.get_running_loop()
        oldest = loop.time() - IDLE_SECONDS
        for key, connections in [*self._idle.items()]:
            for connection in connections:
                if connection.idle_since < oldest:
                    connection.abort()
            kept = [connection for connection in connections if connection.is_open]
            if kept:
                self._idle[key] = kept
            else:
                del self._idle[key]
        self._sweeper = loop.call_later(_SWEEP_SECONDS, self._sweep)


async def _dial(host: str, port: int) -> socket.socket:
    """A connected TCP socket."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(CONNECT_SECONDS):
        family, kind, protocol, _, address = (await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))[0]
        made = socket.socket(family, kind, protocol)
        try:
            made.setblocking(False)
            _notice_dead_peers(made)
            await loop.sock_connect(made, address)
        except BaseException:
            made.close()
            raise
    return made


def _notice_dead_peers(made: socket.socket) -> None:
    """Keep-alive probes: a machine that lost power ends its requests after 30 s, not never."""
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 15), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 30_000)):
        if hasattr(socket, option):
            made.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def _is_delimited(headers: Headers) -> bool:
    return any(name in (b"content-length", b"transfer-encoding") for name, _ in headers)
