"""An identity, a scriptable model server and an agent in front of it, all on the loopback."""

from __future__ import annotations

import asyncio
import datetime
import hashlib
import json
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from engine.agent.__main__ import server_options, tls_context
from engine.agent.app import Agent
from engine.model.worker import WorkerSpec

HOST = "127.0.0.1"
TOKEN = "token-of-this-deployment"


@dataclass(frozen=True)
class Identity:
    certificate_pem: str
    private_key_pem: str

    @property
    def fingerprint(self) -> bytes:
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.certificate_pem)).digest()


def _make_identity() -> Identity:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "dep_test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Identity(certificate.public_bytes(serialization.Encoding.PEM).decode(), private.decode())


@pytest.fixture(scope="session")
def identity() -> Identity:
    return _make_identity()


@pytest.fixture(scope="session")
def other_identity() -> Identity:
    return _make_identity()


@pytest.fixture
def free_port() -> Callable[[], int]:
    def find() -> int:
        with socket.socket() as probe:
            probe.bind((HOST, 0))
            return int(probe.getsockname()[1])

    return find


@pytest.fixture
def make_spec(identity: Identity) -> Callable[..., WorkerSpec]:
    def make(**changes: object) -> WorkerSpec:
        values: dict[str, object] = {
            "deployment_id": "dep_test", "replica": "r1-0", "model_id": "demo/model", "engine": "llama.cpp",
            "image": "", "args": (), "token": TOKEN, "certificate_pem": identity.certificate_pem,
            "private_key_pem": identity.private_key_pem,
        }  # fmt: skip
        return WorkerSpec(**(values | changes))  # type: ignore[arg-type]

    return make


@dataclass
class FakeWorker:
    """A model server whose pace a test decides."""

    port: int = 0
    health: int = 200
    models: list[str] = field(default_factory=lambda: ["demo/model"])
    go_on: asyncio.Event = field(default_factory=asyncio.Event)  # a stream waits here after its first piece
    streaming: asyncio.Event = field(default_factory=asyncio.Event)
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)
    seen: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    async def start(self) -> web.AppRunner:
        app = web.Application()
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._stream)
        app.router.add_post("/v1/silent", self._silent)
        app.router.add_post("/v1/broken", self._broken)
        app.router.add_post("/v1/poisoned", self._poisoned)
        app.router.add_route("*", "/v1/echo", self._echo)
        app.router.add_post("/tokenize", self._echo)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, HOST, self.port)
        await site.start()
        self.port = runner.addresses[0][1]
        return runner

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"}, status=self.health)

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(text="# TYPE worker_tokens counter\nworker_tokens 7\n")

    async def _models(self, _: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": name} for name in self.models]})

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            await response.write(b"data: first\n\n")
            self.streaming.set()
            await self.go_on.wait()
            await response.write(b"data: [DONE]\n\n")
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return response

    async def _silent(self, _: web.Request) -> web.Response:
        """Like a long prompt: not even headers before `go_on`."""
        try:
            self.streaming.set()
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return web.Response(text="late")

    async def _broken(self, request: web.Request) -> web.StreamResponse:
        """Dies in the middle of its answer."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: half\n\n")
        assert request.transport is not None
        request.transport.abort()
        return response

    async def _poisoned(self, request: web.Request) -> web.Response:
        """Reads the request and dies of it."""
        await request.read()
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def _echo(self, request: web.Request) -> web.Response:
        body = await request.read()
        self.seen.append((f"{request.method} {request.raw_path}", dict(request.headers), body))
        return web.Response(body=body, status=418, headers={
            "X-Worker": "yes", "Content-Type": "application/x-own", "X-Stackyard-Agent-Error": "draining",
        })  # fmt: skip


@pytest.fixture
async def worker() -> AsyncIterator[FakeWorker]:
    fake = FakeWorker()
    runner = await fake.start()
    yield fake
    await runner.cleanup()


@dataclass
class Client:
    """A gateway's view of one agent: pinned certificate, token, base URL."""

    session: aiohttp.ClientSession
    base_url: str
    pinned: aiohttp.Fingerprint
    agent: Agent | None = None

    def request(
        self, method: str, path: str, token: str | None = TOKEN, **options: object
    ) -> aiohttp.client._RequestContextManager:
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        headers |= options.pop("headers", {})  # type: ignore[arg-type]
        return self.session.request(method, self.base_url + path, headers=headers, ssl=self.pinned, **options)  # type: ignore[arg-type]

    async def json(self, method: str, path: str, **options: object) -> tuple[int, dict[str, object]]:
        async with self.request(method, path, **options) as answer:  # type: ignore[arg-type]
            return answer.status, await answer.json()


@pytest.fixture
async def connect(identity: Identity) -> AsyncIterator[Callable[[int], Client]]:
    async with aiohttp.ClientSession() as session:
        yield lambda port: Client(session, f"https://{HOST}:{port}", aiohttp.Fingerprint(identity.fingerprint))


@pytest.fixture
async def start_agent(
    connect: Callable[[int], Client], make_spec: Callable[..., WorkerSpec], tmp_path: Path
) -> AsyncIterator[Callable[..., Awaitable[Client]]]:
    """Serve an agent in this process; its root is `tmp_path`."""
    running: list[tuple[web.AppRunner, Agent]] = []

    async def start(worker_port: int, **changes: object) -> Client:
        spec = make_spec(worker_port=worker_port, **changes)
        agent = Agent(spec, HOST, tmp_path)
        of_runner, of_site = server_options()
        runner = web.AppRunner(agent.application(), access_log=None, **of_runner)
        running.append((runner, agent))
        await runner.setup()
        await web.TCPSite(runner, HOST, 0, ssl_context=tls_context(spec), **of_site).start()
        client = connect(runner.addresses[0][1])
        client.agent = agent
        return client

    yield start
    for runner, agent in running:
        await runner.cleanup()
        await agent.close()


@pytest.fixture
async def client(start_agent: Callable[..., Awaitable[Client]], worker: FakeWorker) -> Client:
    return await start_agent(worker.port)


@pytest.fixture
def write_spec(tmp_path: Path) -> Callable[[WorkerSpec | dict[str, object]], Path]:
    def write(spec: WorkerSpec | dict[str, object]) -> Path:
        path = tmp_path / "worker.json"
        path.write_text(spec.to_json() if isinstance(spec, WorkerSpec) else json.dumps(spec))
        return path

    return write
