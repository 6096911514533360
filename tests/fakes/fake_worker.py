"""A worker's agent as the gateway meets it: TLS with a deployment's certificate, its token, scripted answers."""

from __future__ import annotations

import asyncio
import json
import ssl
import tempfile
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web

from engine.model.workload import WorkerIdentity

WORDS = ("Gradient", " descent", " walks", " downhill", ".")


@dataclass
class Seen:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class FakeWorker:
    """Serves on a free port of 127.0.0.1, in a thread and event loop of its own.

    `answer` replaces what chat completions do. `cancelled` is set when the gateway broke off a request.
    """

    identity: WorkerIdentity
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
    answer_get: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None
    seen: list[Seen] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    def __post_init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._transports: set[asyncio.Transport] = set()
        self._started = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))
        self._thread.start()
        assert self._started.wait(60)

    @property
    def endpoint(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def close(self) -> None:
        if self._thread.is_alive():
            self.go_on.set()
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(60)
            self._loop.close()

    async def _serve(self) -> None:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        self._routes(app)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port, ssl_context=self._tls())
        await site.start()
        self.port = runner.addresses[0][1]
        self._started.set()
        await self._stop.wait()
        await runner.cleanup()
        for transport in self._transports:  # TLS waits for the other side's goodbye; this loop ends now
            transport.abort()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    def _routes(self, app: web.Application) -> None:
        app.router.add_route("*", "/v1/{call:.*}", self._handle)
        app.router.add_route("POST", "/tokenize", self._handle)

    def _tls(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory() as folder:
            pair = Path(folder) / "pair.pem"
            pair.write_text(self.identity.certificate_pem + self.identity.private_key_pem)
            context.load_cert_chain(pair)
        return context

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        if isinstance(request.transport, asyncio.Transport):
            self._transports.add(request.transport)
        body = await request.read()
        self.seen.append(Seen(request.raw_path, {k.lower(): v for k, v in request.headers.items()}, body))
        if request.headers.get("Authorization") != f"Bearer {self.identity.token}":
            return web.json_response({"error": "wrong token"}, status=401)
        if request.method == "GET" and self.answer_get is None:
            return web.json_response({"object": "list", "data": [{"id": "m", "object": "model", "created": 1,
                                                                  "owned_by": "stackyard"}]})  # fmt: skip
        try:
            return await ((self.answer_get if request.method == "GET" else self.answer) or self._chat)(request)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        asked = json.loads((await request.read()) or b"{}")
        if not asked.get("stream"):
            return web.json_response(_completion(asked.get("model", "m")))
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for word in WORDS:
            await response.write(sse(word))
        await response.write(b"data: [DONE]\n\n")
        return response

    async def stream_when_told(self, request: web.Request) -> web.StreamResponse:
        """First word at once, the rest only after `go_on`."""
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(sse(WORDS[0]))
        await self._told()
        for word in WORDS[1:]:
            await response.write(sse(word))
        await response.write(b"data: [DONE]\n\n")
        return response

    async def hang(self, request: web.Request) -> web.StreamResponse:
        """No answer until `go_on`."""
        await self._told()
        return web.json_response(_completion("late"))

    async def _told(self) -> None:
        while not self.go_on.is_set():  # noqa: ASYNC110 (set by the test's thread, which has no event loop)
            await asyncio.sleep(0.005)


def sse(word: str) -> bytes:
    chunk = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m",
             "choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]}  # fmt: skip
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


def _completion(model: str) -> dict[str, object]:
    message = {"role": "assistant", "content": "".join(WORDS)}
    return {
        "id": "c1", "object": "chat.completion", "created": 1, "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 5, "total_tokens": 6},
    }  # fmt: skip
