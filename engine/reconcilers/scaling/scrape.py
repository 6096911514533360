"""Asks the agents of awake replicas for their metrics, a bounded number at a time, and keeps what they said."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import aiohttp
from sqlalchemy import Row, select
from sqlmodel import Session

from engine.model.clock import Clock
from engine.model.deployment import ReplicaPhase
from engine.reconcilers.deployments.probe import Credentials
from engine.reconcilers.scaling.exposition import Gauges, gauges_of
from engine.reconcilers.scaling.observe import can_change, scaling_of
from engine.store import autoscaling
from engine.store.database import Database
from engine.store.sealing import CannotOpen, Sealer
from engine.store.tables import DeploymentRow
from engine.store.traffic_tables import ReplicaMetricsRow

TIMEOUT_SECONDS = 3.0
LARGEST_BYTES = 4 * 1024 * 1024
"""vLLM's own is some 200 KiB; a replica that sends without end must not fill the leader's memory."""

AT_ONCE = 64

ROWS_PER_TRANSACTION = 1000
"""Others wait for it while it writes."""


@dataclass(frozen=True)
class Target:
    """One replica to be asked; `scales` ones come first when there is no time for all."""

    deployment_id: str
    replica: str
    endpoint: str
    credentials: Credentials
    scales: bool


class Meter(Protocol):
    """Reads the gauges of one replica."""

    async def read(self, endpoint: str, credentials: Credentials) -> Gauges | None:
        """None: it does not answer."""
        ...


class AgentMeter:
    """One connection pool for all scrapes of this process. Use as an async context manager."""

    def __init__(self, *, timeout_seconds: float = TIMEOUT_SECONDS) -> None:
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> AgentMeter:
        connector = aiohttp.TCPConnector(limit=AT_ONCE, ttl_dns_cache=10)
        self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout)
        return self

    async def __aexit__(self, *_error: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def read(self, endpoint: str, credentials: Credentials) -> Gauges | None:
        """One `GET {endpoint}/metrics`. Never raises."""
        if self._session is None:
            raise RuntimeError("AgentMeter is used as an async context manager")
        try:
            async with self._session.get(
                f"{endpoint.rstrip('/')}/metrics",
                headers={"authorization": f"Bearer {credentials.token}"},
                ssl=aiohttp.Fingerprint(bytes.fromhex(credentials.fingerprint)),
                allow_redirects=False,
            ) as response:
                text = await _bounded(response) if response.status == 200 else None
        except (aiohttp.ClientError, OSError):  # a timeout is an OSError
            return None
        return None if text is None else gauges_of(text)


async def _bounded(response: aiohttp.ClientResponse) -> bytes | None:
    parts, size = [], 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > LARGEST_BYTES:
            return None
        parts.append(part)
    return b"".join(parts)


class Scraper:
    """Brings `ReplicaMetricsRow` up to date.

    Args:
        budget_seconds: who was not asked within this time is asked first the next time.
    """

    def __init__(
        self, database: Database, clock: Clock, sealer: Sealer, meter: Meter, *, budget_seconds: float
    ) -> None:
        self._database = database
        self._clock = clock
        self._sealer = sealer
        self._meter = meter
        self._budget = budget_seconds
        self._asked: dict[tuple[str, str], int] = {}
        self._round = 0

    async def scrape(self) -> int:
        """Ask every ready replica once, as far as time allows; returns how many answered."""
        targets, existing = await asyncio.to_thread(self._targets)
        self._asked = {key: round for key, round in self._asked.items() if key in existing}
        self._round += 1
        rows: list[ReplicaMetricsRow] = []
        waiting = iter(sorted(targets, key=lambda t: (not t.scales, self._asked.get((t.deployment_id, t.replica), 0))))
        deadline = self._clock.monotonic() + self._budget

        async def work() -> None:
            for target in waiting:
                if self._clock.monotonic() >= deadline:
                    return
                self._asked[target.deployment_id, target.replica] = self._round
                gauges = await self._meter.read(target.endpoint, target.credentials)
                if gauges is not None:
                    rows.append(_row(target, gauges, self._clock.now()))

        async with asyncio.TaskGroup() as group:
            for _ in range(min(AT_ONCE, len(targets))):
                group.create_task(work())
        await asyncio.to_thread(self._record, rows, existing)
        return len(rows)

    def _targets(self) -> tuple[list[Target], set[tuple[str, str]]]:
        """Who is to be asked, and every replica there is."""
        with self._database.read() as session:
            found = _awake(session)
        targets, existing = [], set()
        for row in found:
            existing |= {(row.id, r["name"]) for r in row.replicas}
            ready = [r for r in row.replicas if r["phase"] == ReplicaPhase.READY]
            if ready and (credentials := self._credentials(row)):
                scales = can_change(scaling_of(row.spec))
                targets += [Target(row.id, r["name"], r["endpoint"], credentials, scales) for r in ready]
        return targets, existing

    def _credentials(self, row: Row[Any]) -> Credentials | None:
        """None where the token cannot be opened: its health says so, and one such row must not stop the others."""
        try:
            return Credentials(row.worker_fingerprint, self._sealer.open(row.worker_token_sealed))
        except CannotOpen:
            return None

    def _record(self, rows: Sequence[ReplicaMetricsRow], existing: set[tuple[str, str]]) -> None:
        with self._database.read() as session:
            gone = autoscaling.measured_replicas(session) - existing
        if gone:
            with self._database.write() as session:
                autoscaling.forget_replicas(session, gone)
        for start in range(0, len(rows), ROWS_PER_TRANSACTION):
            with self._database.write() as session:
                autoscaling.record_metrics(session, rows[start : start + ROWS_PER_TRANSACTION])


def _awake(session: Session) -> Sequence[Row[Any]]:
    row = DeploymentRow.__table__.c  # type: ignore[attr-defined]
    columns: list[Any] = [row.id, row.spec, row.replicas, row.worker_fingerprint, row.worker_token_sealed]
    query = select(*columns).where(row.deleted_at.is_(None), row.asleep_since.is_(None))
    return session.connection().execute(query).all()


def _row(target: Target, gauges: Gauges, now: datetime) -> ReplicaMetricsRow:
    return ReplicaMetricsRow(
        deployment_id=target.deployment_id, replica=target.replica, at=now, running=gauges.running,
        waiting=gauges.waiting, kv_cache=gauges.kv_cache, gpu_utilisation=gauges.gpu_utilisation,
    )  # fmt: skip
