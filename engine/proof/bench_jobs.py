"""Jobs in numbers: accepted per second, from submission to handler, end to end. Beside Celery and Redis where they are.

One gateway process, one process of handlers that do nothing, and the clients here: three on one machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import httpx
from sqlalchemy import and_, func, select
from sqlmodel import col

from engine.billing import credit
from engine.identity.keys import KeyHasher
from engine.model import ids
from engine.model.clock import Clock
from engine.model.errors import Unavailable
from engine.model.handler import HandlerSpec, Worker, WorkerPhase
from engine.model.job import JobState
from engine.proof import celery_peer
from engine.proof.http_load import Answered, request, send_all
from engine.store import handlers, keys, orgs, prices
from engine.store.database import Database
from engine.store.handler_tables import HandlerRow
from engine.store.job_tables import JobRow
from engine.store.ledger_tables import PriceRow
from engine.store.migrate import migrate
from engine.store.sealing import Sealer
from engine.store.tables import ApiKeyRow, OrgRow

LIMITS: Mapping[str, float] = {
    "submit_per_s": 1000.0, "warm_overhead_p50_ms": 15.0, "warm_overhead_p95_ms": 50.0, "throughput_per_s": 300.0,
    "cold_start_p95_s": 1.5, "upload_rss_mib": 64.0, "container_up_s": 0.5,
}  # fmt: skip
"""What is promised; the figures per second from below, the others from above."""

PEER_RATIO = 0.5
_START_SECONDS = 60.0
_INPUT = b'{"input":{"prompt":"a cat astronaut","steps":20,"seed":42}}'
_ORG = "org_bench"


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    submissions: int = 6000
    warm: int = 400
    jobs: int = 4000
    workers: int = 16
    connections: int = 24


@dataclass(frozen=True)
class Found:
    """One figure, or why there is none."""

    value: float | None
    unit: str
    reason: str = ""
    peer: str = ""
    peer_value: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self, limit: float | None) -> dict[str, Any]:
        shown: dict[str, Any] = {"value": None if self.value is None else round(self.value, 3), "unit": self.unit}
        if limit is not None:
            shown["limit"] = limit
        if limit is not None and self.value:
            shown["held"] = self.value >= limit if self.unit.endswith("/s") else self.value <= limit
        if self.reason:
            shown["reason"] = self.reason
        if self.peer and self.value is not None and self.peer_value is not None:
            ratio = round(self.value / self.peer_value, 2)
            shown |= {"peer": self.peer, "peer_value": round(self.peer_value, 1), "ratio": ratio}
        return shown | dict(self.extra)


def none(names: Sequence[str], unit: str, reason: str) -> dict[str, Found]:
    """Figures that were not measured, and why."""
    return {name: Found(None, unit, reason) for name in names}


def to_json(found: Mapping[str, Found]) -> dict[str, Any]:
    return {name: one.to_json(LIMITS.get(name)) for name, one in found.items()}


def run(clock: Clock, size: Size, *, database_url: str = "", celery_python: str = "") -> dict[str, Found]:
    """All figures of this module; a new SQLite database unless one is named."""
    with tempfile.TemporaryDirectory(prefix="stackyard-bench-jobs-") as folder:
        url = database_url or f"sqlite:///{folder}/jobs.db"
        ports = free_ports(size.workers + 1)
        yard = _prepare(url, clock, ports[1:])
        with _processes(yard, url, ports):
            _wait_ready(yard, ports[0], clock)
            loop = asyncio.new_event_loop()
            try:
                accepted = loop.run_until_complete(_submit(yard, ports[0], clock, size))
                warm = loop.run_until_complete(_warm(yard, ports[0], clock, size))
                through = loop.run_until_complete(_through(yard, ports[0], clock, size))
            finally:
                loop.close()
    peer = celery_peer.tasks_per_second(size.jobs, celery_python)
    found = accepted | warm
    found["throughput_per_s"] = Found(
        through, "jobs/s", peer="celery", peer_value=peer.per_second,
        extra={} if peer.per_second else {"peer_reason": peer.reason},
    )  # fmt: skip
    return found


@dataclass(frozen=True)
class _Yard:
    """What was put into the database."""

    database: Database
    secret: bytes
    key: str
    busy: str
    idle: str

    @property
    def headers(self) -> list[tuple[str, str]]:
        return [("authorization", f"Bearer {self.key}"), ("content-type", "application/json")]


def _prepare(url: str, clock: Clock, worker_ports: Sequence[int]) -> _Yard:
    """A tenant with money, a deployment whose workers are there, and one without any."""
    secret = bytes.fromhex(ids.random_hex(64))
    database, now = Database(url), clock.now()
    migrate(database)
    secret_key, key_hash, prefix = KeyHasher(secret).new_key("ck")
    org = OrgRow(id=_ORG, name="Bench", tier="pro", credit_limit_microdollars=0, created_at=now)
    price = PriceRow(id=ids.new_id("price"), sku="gpu_second:AMPERE_16", unit="second",
                     unit_usd=Decimal("0.0001"), effective_from=now, created_at=now, created_by="bench")  # fmt: skip
    with database.write() as session:
        orgs.insert(session, org)
        credit.deposit(session, _ORG, 10**12, key="bench", actor="bench", now=now, paid_by=credit.PaidBy.OPERATOR)
        prices.put(session, price, now=now)
        keys.insert(session, ApiKeyRow(id=ids.new_id("key"), org_id=_ORG, name="bench", prefix=prefix,
                                       key_hash=key_hash, created_at=now))  # fmt: skip
        for slug, ports in (("busy", worker_ports), ("idle", ())):
            handlers.insert_once(session, _handler(slug, ports, Sealer(secret), now))
    return _Yard(database, secret, secret_key, "busy", "idle")


def _handler(slug: str, ports: Sequence[int], sealer: Sealer, now: datetime) -> HandlerRow:
    spec = HandlerSpec(slug=slug, name=slug, image="noop", pools=("AMPERE_16",), workers_max=max(1, len(ports)))
    workers = [
        Worker(
            name=f"w{number}", pool="AMPERE_16", target="docker", endpoint=f"http://127.0.0.1:{port}",
            phase=WorkerPhase.BOOTING, created_at=now, phase_since=now,
        ).model_dump(mode="json")
        for number, port in enumerate(ports)
    ]  # fmt: skip
    return HandlerRow(
        id=ids.new_id("hdl"), org_id=_ORG, slug=slug, name=slug, spec=spec.model_dump(mode="json"), created_at=now,
        updated_at=now, worker_token_sealed=sealer.seal("bench"), worker_key_sealed="", worker_certificate_pem="",
        worker_fingerprint="00" * 32, phase="active", workers=workers,
    )  # fmt: skip


@contextmanager
def _processes(yard: _Yard, url: str, ports: Sequence[int]) -> Iterator[None]:
    handler = [sys.executable, "-m", "engine.proof.noop_handler", *map(str, ports[1:])]
    gateway = [sys.executable, "-m", "engine.proof.jobs_gateway", url, str(ports[0])]
    serving = subprocess.Popen(gateway, stdin=subprocess.PIPE)
    children = [subprocess.Popen(handler), serving]
    try:
        assert serving.stdin is not None
        serving.stdin.write(f"{yard.secret.hex()}\n".encode())
        serving.stdin.close()
        yield
    finally:
        for child in children:
            child.terminate()
        for child in children:
            child.wait(30)
        yard.database.close()


def _wait_ready(yard: _Yard, port: int, clock: Clock) -> None:
    """Until every worker of the busy deployment is known to be ready."""
    deadline = clock.monotonic() + _START_SECONDS
    headers = dict(yard.headers)
    while clock.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            answer = httpx.get(f"http://127.0.0.1:{port}/v1/gpu/{yard.busy}/health", headers=headers, timeout=5)
            if answer.status_code == 200 and not answer.json()["workers"]["initializing"]:
                return
        asyncio.run(clock.sleep(0.1))
    raise Unavailable(f"the gateway of this measurement was not ready within {_START_SECONDS:.0f} s")


async def _submit(yard: _Yard, port: int, clock: Clock, size: Size) -> dict[str, Found]:
    """Submissions to a deployment without workers: accepted and durable, nothing else."""
    one = request("POST", f"/v1/gpu/run/{yard.idle}", yard.headers, _INPUT)
    await send_all(port, [one] * 200, clock, connections=size.connections)
    answers = await send_all(port, [one] * size.submissions, clock, connections=size.connections)
    _require_ok(answers)
    seconds = max(a.done for a in answers) - min(a.sent for a in answers)
    with yard.database.read() as session:
        stored = session.connection().execute(select(func.count()).select_from(JobRow)).scalar_one()
    if stored != size.submissions + 200:
        raise RuntimeError(f"{size.submissions + 200} jobs were accepted and {stored} are stored")
    return {"submit_per_s": Found(len(answers) / seconds, "jobs/s")}


async def _warm(yard: _Yard, port: int, clock: Clock, size: Size) -> dict[str, Found]:
    """One job at a time to a ready worker: from before the request is sent until the handler has it."""
    one = request("POST", f"/v1/gpu/runsync/{yard.busy}", yard.headers, _INPUT)
    await send_all(port, [one] * 20, clock, connections=1)
    answers = await send_all(port, [one] * size.warm, clock, connections=1)
    _require_ok(answers)
    waits = sorted((a.body["output"]["at"] - a.sent) * 1000 for a in answers)
    p95 = statistics.quantiles(waits, n=20, method="inclusive")[-1]
    return {
        "warm_overhead_p50_ms": Found(statistics.median(waits), "ms"),
        "warm_overhead_p95_ms": Found(p95, "ms"),
    }


async def _through(yard: _Yard, port: int, clock: Clock, size: Size) -> float:
    """Jobs per second from the first submission to the last result, every one in the books."""
    one = request("POST", f"/v1/gpu/run/{yard.busy}", yard.headers, _INPUT)
    began = clock.monotonic()
    before = clock.now()
    answers = await send_all(port, [one] * size.jobs, clock, connections=size.connections)
    _require_ok(answers)
    wanted = size.jobs
    while (ended := _ended_since(yard, before)) < wanted:
        if clock.monotonic() - began > 300:
            raise Unavailable(f"{ended} of {wanted} jobs had ended after five minutes")
        await clock.sleep(0.05)
    with yard.database.read() as session:
        last = session.connection().execute(select(func.max(JobRow.finished_at))).scalar_one() or before
    return wanted / max(1e-9, (last - before) / timedelta(seconds=1))


def _ended_since(yard: _Yard, moment: datetime) -> int:
    ended = and_(col(JobRow.created_at) >= moment, col(JobRow.state) == JobState.SUCCEEDED.value)
    with yard.database.read() as session:
        return int(session.connection().execute(select(func.count()).select_from(JobRow).where(ended)).scalar_one())


def _require_ok(answers: Sequence[Answered]) -> None:
    for answer in answers:
        if answer.status != 200:
            raise Unavailable(f"a request was answered {answer.status}: {answer.body}")


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody has at this moment."""
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in held]
    for one in held:
        one.close()
    return ports
