"""A store with one tenant, a gateway that accepts and dispatches jobs, and what puts handlers and workers into it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from engine.billing import credit
from engine.billing.credit import PaidBy
from engine.gateway.api_proxy import ApiProxy
from engine.gateway.feed import RouteFeed
from engine.gateway.front_door import FrontDoor
from engine.gateway.job_front import JobFront
from engine.gateway.metrics import GatewayMetrics
from engine.gateway.routes import RouteTable
from engine.identity.keys import KeyHasher
from engine.jobs.service import JobOptions, JobService
from engine.jobs.telling import Teller
from engine.model import ids
from engine.model.clock import SystemClock
from engine.model.handler import HandlerSpec, Worker, WorkerPhase
from engine.model.ledger import AccountKind, Posting, Reason, Source, SourceKind, Transaction
from engine.store import changes, handlers, jobs, ledger, orgs, prices
from engine.store.database import Database
from engine.store.handler_tables import HandlerRow
from engine.store.job_tables import JobRow
from engine.store.ledger_tables import PriceRow
from engine.store.sealing import Sealer
from engine.store.tables import OrgRow
from tests.fakes.byte_path import byte_path
from tests.fakes.handler_server import HandlerServer
from tests.fakes.people import People

SECRET = b"0123456789abcdef0123456789abcdef"
SECONDS = 20.0
"""How long a test waits for what should take milliseconds."""


@dataclass
class Yard:
    """A store with one tenant and its key, and what puts handlers and workers into it."""

    database: Database
    sealer: Sealer
    hasher: KeyHasher
    clock: SystemClock = field(default_factory=SystemClock)
    headers: dict[str, str] = field(default_factory=dict)
    url: str = ""
    service: JobService | None = None

    @property
    def people(self) -> People:
        return People(self.database, self.hasher, self.clock.now())

    def add_handler(self, *workers: HandlerServer | str, slug: str = "echo", org_id: str = "org_1", **spec: Any) -> str:
        handler_id = ids.new_id("hdl")
        made = HandlerSpec(slug=slug, name=slug, image="x", pools=("AMPERE_16",), **spec)
        now = self.clock.now()
        row = HandlerRow(
            id=handler_id, org_id=org_id, slug=slug, name=slug, spec=made.model_dump(mode="json"), created_at=now,
            updated_at=now, worker_token_sealed=self.sealer.seal("token"), worker_key_sealed="",
            worker_certificate_pem="", worker_fingerprint="00" * 32, phase="active",
            workers=self.workers(*workers),
        )  # fmt: skip
        with self.database.write() as session:
            handlers.insert_once(session, row)
        return handler_id

    def workers(self, *servers: HandlerServer | str, phase: WorkerPhase = WorkerPhase.BOOTING) -> list[dict[str, Any]]:
        """One worker per server, `w0`, `w1`, …; a text is an endpoint."""
        now = self.clock.now()
        return [
            Worker(
                name=f"w{number}", pool="AMPERE_16", target="docker", phase=phase, created_at=now, phase_since=now,
                endpoint=server if isinstance(server, str) else server.url,
            ).model_dump(mode="json")
            for number, server in enumerate(servers)
        ]  # fmt: skip

    def change(self, handler_id: str, **values: Any) -> None:
        with self.database.write() as session:
            row = session.get_one(HandlerRow, handler_id)
            for name, value in values.items():
                setattr(row, name, value)
            changes.record(session, changes.HANDLER, handler_id, self.clock.now())

    def make_poor(self) -> None:
        """Take all its money from the organisation."""
        with self.database.write() as session:
            left = ledger.balance(session, "org_1").wallet
            postings = (Posting(AccountKind.WALLET, -left), Posting(AccountKind.REVENUE, left))
            source = Source(SourceKind.METER, "poor")
            entry = Transaction(key="poor", org_id="org_1", reason=Reason.USAGE, source=source, postings=postings,
                                effective_at=self.clock.now(), actor="t")  # fmt: skip
            ledger.post(session, entry, now=self.clock.now())

    def stranger(self) -> dict[str, str]:
        """The headers of another organisation's key."""
        now = self.clock.now()
        row = OrgRow(id="org_2", name="Else", tier="basic", credit_limit_microdollars=None, created_at=now)
        with self.database.write() as session:
            orgs.insert(session, row)
        return self.people.key("org_2")[1]

    def row(self, job_id: str) -> JobRow:
        with self.database.read() as session:
            row = jobs.get(session, job_id)
        assert row is not None
        return row

    def client(self, headers: dict[str, str] | None = None) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers=self.headers if headers is None else headers, timeout=SECONDS,
                            verify=False)  # fmt: skip

    def run(self, slug: str = "echo", job_input: Any = None, **fields: Any) -> str:
        with self.client() as client:
            answer = client.post(f"/v1/gpu/run/{slug}", json={"input": job_input, **fields})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["job_id"])

    def get(self, job_id: str) -> dict[str, Any]:
        with self.client() as client:
            answer = client.get(f"/v1/gpu/jobs/{job_id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def ended(self, job_id: str) -> dict[str, Any]:
        """The job once it is over."""
        return self.until(lambda: (job := self.get(job_id))["status"] not in ("queued", "running") and job)

    def until(self, condition: Callable[[], Any]) -> Any:
        """What the condition returns once it is true."""
        deadline = self.clock.monotonic() + SECONDS
        pause = threading.Event()
        while not (found := condition()):
            assert self.clock.monotonic() < deadline, "it did not happen in time"
            pause.wait(0.01)
        return found


@contextmanager
def serve(yard: Yard, folder: Path) -> Iterator[Yard]:
    """A gateway in a thread until the block ends."""
    table, metrics = RouteTable(), GatewayMetrics()
    feed = RouteFeed(yard.database, table, yard.sealer, yard.clock)
    proxy = ApiProxy(folder / "no.sock", max_body_bytes=2**20)
    options = JobOptions(tell=Teller(yard.sealer))
    service = JobService(yard.database, yard.sealer, yard.clock, ids.new_id, ids.new_id("jobs"), options)
    front = JobFront(service, table, yard.hasher, yard.clock, feed.fresh, proxy.infrastructure_caller)
    inference = byte_path(yard.database, table, feed, yard.hasher, yard.clock, metrics)
    door = FrontDoor(inference, proxy, feed, metrics, ids.new_id, jobs=front)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = uvicorn.Config(door, host="127.0.0.1", port=port, log_level="warning", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        thread.join(0.005)
    yard.url, yard.service = f"http://127.0.0.1:{port}", service
    try:
        yield yard
    finally:
        server.should_exit = True
        thread.join(30)


def new_yard(store: Database) -> Yard:
    """The store of a yard, without a gateway."""
    clock = SystemClock()
    hasher, sealer = KeyHasher(SECRET), Sealer(SECRET)
    now = clock.now()
    with store.write() as session:
        orgs.insert(session, OrgRow(id="org_1", name="Acme", tier="pro", credit_limit_microdollars=0, created_at=now))
        credit.deposit(session, "org_1", 10_000_000, key="d", actor="t", now=now, paid_by=PaidBy.OPERATOR)
        price = PriceRow(id="price_1", sku="gpu_second:AMPERE_16", unit="second", unit_usd=Decimal("0.0001"),
                         effective_from=now + timedelta(milliseconds=1), created_at=now, created_by="t")  # fmt: skip
        prices.put(session, price, now=now)
    yard = Yard(store, sealer, hasher)
    _, yard.headers = yard.people.key("org_1")
    return yard
