"""A model server that costs almost nothing: what stands behind every proxy that is measured. Not a model.

`python -m engine.proof.fake_openai PLAIN_PORT TLS_PORT TOKENS PACE_SECONDS`, a worker's identity (JSON) on standard
input. The plain port is for other proxies; on the TLS port it shows the worker's certificate and demands its token, as
agents do.
"""

from __future__ import annotations

import asyncio
import json
import signal
import ssl
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import uvloop

from engine.model.workload import WorkerIdentity

HOSTS = ("127.0.0.1", "127.0.0.2")
"""Two addresses on the TLS port: two replicas to choose from."""

_PEEK_BYTES = 65_536
_GOLDEN = 0.6180339887
"""Multiples of it, less their whole part, spread evenly however many there are."""

_UNAUTHORIZED = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n"
_TEXT = "Gradient descent walks downhill, one small step at a time, until the slope is all but level. " * 4


class Answers:
    """Answers made once: one JSON object, and the pieces of one event stream.

    Args:
        tokens: events with text in a stream; pace_seconds: from one to the next, about.
    """

    def __init__(self, tokens: int, pace_seconds: float) -> None:
        usage = {"prompt_tokens": 12, "completion_tokens": tokens, "total_tokens": 12 + tokens}
        self._pace_seconds, self._connections = pace_seconds, 0
        self.whole = _whole(json.dumps(_completion(usage)).encode())
        first = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        words = [_chunk(_event({"delta": {"content": " downhill"}})) for _ in range(tokens)]
        words[0] = first + words[0]
        words[-1] += _chunk(_event({"delta": {}, "finish_reason": "stop"}, usage))
        words[-1] += _chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n"
        self.pieces = words

    def next_pace(self) -> float:
        """The pace of one more connection: up to 5 % off, each another, so that streams do not fall into step."""
        self._connections += 1
        return self._pace_seconds * (0.95 + 0.1 * (self._connections * _GOLDEN % 1))


class Connection(asyncio.Protocol):
    """One kept connection; requests come one after the other. Reads only what it must."""

    def __init__(self, answers: Answers, token: str, loop: asyncio.AbstractEventLoop) -> None:
        self._answers, self._loop = answers, loop
        self._pace_seconds = answers.next_pace()
        self._demanded = f"bearer {token}".encode().lower() if token else b""
        self._transport: asyncio.Transport | None = None
        self._data = bytearray()
        self._missing = 0
        self._streams = False
        self._refused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not subclasses of it

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def data_received(self, data: bytes) -> None:
        if self._missing:
            self._missing -= len(data)
        else:
            self._data += data
            end = self._data.find(b"\r\n\r\n")
            if end < 0:
                return
            self._begin(bytes(self._data[:end]).lower(), end + 4)
        if self._missing <= 0:
            self._missing = 0
            self._answer()

    def _begin(self, head: bytes, body_at: int) -> None:
        at = head.find(b"\r\ncontent-length:")
        length = int(head[at + 17 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        self._missing = body_at + length - len(self._data)
        body = bytes(self._data[body_at : body_at + _PEEK_BYTES])
        self._streams = b'"stream": true' in body or b'"stream":true' in body
        self._data.clear()
        self._refused = self._demanded not in head

    def _answer(self) -> None:
        if self._refused:
            self._write(_UNAUTHORIZED)
        elif self._streams:
            self._piece(0)
        else:
            self._write(self._answers.whole)

    def _piece(self, number: int) -> None:
        self._write(self._answers.pieces[number])
        if self._transport is not None and number + 1 < len(self._answers.pieces):
            self._loop.call_later(self._pace_seconds, self._piece, number + 1)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


def _completion(usage: dict[str, int]) -> dict[str, Any]:
    message = {"role": "assistant", "content": _TEXT}
    return {
        "id": "chatcmpl-1", "object": "chat.completion", "created": 1_790_000_000, "model": "bench",
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}], "usage": usage,
    }  # fmt: skip


def _event(choice: dict[str, Any], usage: dict[str, int] | None = None) -> bytes:
    body = {
        "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_790_000_000, "model": "bench",
        "choices": [{"index": 0, "finish_reason": None, **choice}], **({"usage": usage} if usage else {}),
    }  # fmt: skip
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def _chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def _whole(body: bytes) -> bytes:
    return f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def tls_of(identity: WorkerIdentity) -> ssl.SSLContext:
    """The worker's certificate and key; the ssl module reads only files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with tempfile.TemporaryDirectory(prefix="stackyard-bench-") as folder:
        pair = Path(folder) / "pair.pem"
        pair.touch(0o600)
        pair.write_text(identity.certificate_pem + identity.private_key_pem)
        context.load_cert_chain(pair)
    return context


async def serve(plain_port: int, tls_port: int, identity: WorkerIdentity, answers: Answers) -> None:
    """Serve until SIGTERM."""
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)

    def made(token: str) -> Callable[[], Connection]:
        return lambda: Connection(answers, token, loop)

    await loop.create_server(made(""), "127.0.0.1", plain_port, backlog=2048)
    for host in HOSTS:
        await loop.create_server(made(identity.token), host, tls_port, ssl=tls_of(identity), backlog=2048)
    await stopped.wait()


def main() -> None:
    plain_port, tls_port, tokens, pace = sys.argv[1:]
    identity = WorkerIdentity(**json.loads(sys.stdin.readline()))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(plain_port), int(tls_port), identity, Answers(int(tokens), float(pace))))


if __name__ == "__main__":
    main()
