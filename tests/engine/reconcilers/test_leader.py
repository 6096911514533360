"""Leading goes on after the database was away, and ends when it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import cast

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError
from sqlmodel import Session

from engine.controller.controller import Controller
from engine.controller.keeper import LeaseKeeper
from engine.model.errors import StaleLease
from engine.reconcilers.deployments.snapshot import Policy
from engine.reconcilers.leader import LEADER_LEASE, Guard, LeaderParts, lead_when_possible
from engine.store import deployments, leases, orgs
from engine.store.database import Database
from engine.store.sealing import Sealer
from engine.store.tables import DeploymentRow
from tests.fakes.clock import FakeClock
from tests.fakes.cloud import INSTALLATION, FakeCloud
from tests.fakes.rows import deployment_row, org_row

TIMEOUT_SECONDS = 30


class AwayDatabase(Database):
    """A database that is away for the next `reads` reads and the next `writes` writes."""

    reads = writes = 0

    @contextmanager
    def read(self) -> Iterator[Session]:
        if self.reads > 0:
            self.reads -= 1
            raise OperationalError("SELECT", {}, ConnectionError("the server closed the connection"))
        with super().read() as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        if self.writes > 0:
            self.writes -= 1
            raise OperationalError("UPDATE", {}, ConnectionError("the server closed the connection"))
        with super().write() as session:
            yield session


class FakeController:
    """Keeps leases; says when the first operation was submitted: then the reconcilers work."""

    def __init__(self, keeper: LeaseKeeper) -> None:
        self.keeper = keeper
        self.submitted = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def submit(self, operation_id: str, key: str) -> None:
        self._loop.call_soon_threadsafe(self.submitted.set)


@dataclass
class Rig:
    database: AwayDatabase
    clock: FakeClock
    parts: LeaderParts
    controller: FakeController

    @asynccontextmanager
    async def leading(self) -> AsyncIterator[asyncio.Task[None]]:
        """The loop, until it submitted an operation; cancelled at the end, its own error is raised."""
        loop = asyncio.create_task(lead_when_possible(self.parts))
        submitted = asyncio.create_task(self.controller.submitted.wait())
        try:
            await asyncio.wait({loop, submitted}, timeout=TIMEOUT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if loop.done():
                loop.result()
            assert self.controller.submitted.is_set()
            yield loop
        finally:
            submitted.cancel()
            loop.cancel()
            await asyncio.wait({loop}, timeout=TIMEOUT_SECONDS)


def new_row(clock: FakeClock, sealer: Sealer, id: str) -> DeploymentRow:
    token, key = sealer.seal("wt_1"), sealer.seal("key")
    return deployment_row(clock.now(), id, worker_token_sealed=token, worker_key_sealed=key)


@pytest.fixture
async def rig(database_url: str, clock: FakeClock) -> AsyncIterator[Rig]:
    database = AwayDatabase(database_url)
    sealer = Sealer(b"x" * 32)
    with database.write() as session:
        orgs.insert(session, org_row(clock.now()))
        orgs.ensure_installation(session, new_id="inst_1", now=clock.now())
        deployments.insert(session, new_row(clock, sealer, "dep_1"))
    keeper = LeaseKeeper(database, clock, owner="w1", ttl_seconds=1e6, on_death=lambda: None)
    controller = FakeController(keeper)
    parts = LeaderParts(
        database=database,
        clock=clock,
        sealer=sealer,
        controller=cast(Controller, controller),
        inventory=FakeCloud(),
        installation_tag=INSTALLATION,
        hourly_usd=lambda _: Decimal("4.41"),
        policy=Policy(),
        reconcile_period_seconds=5.0,
        sweep_period_seconds=60.0,
    )
    yield Rig(database, clock, parts, controller)
    database.close()


async def test_leads_when_the_database_is_back_for_the_lease(rig: Rig) -> None:
    rig.database.writes = 3
    async with rig.leading():
        assert rig.database.writes == 0


async def test_leads_again_when_the_database_is_back_for_the_reconcilers(rig: Rig) -> None:
    """Reading what to begin with fails first."""
    rig.database.reads = 3
    async with rig.leading():
        assert rig.database.reads == 0


async def test_a_short_outage_while_leading_is_survived(rig: Rig) -> None:
    async with rig.leading() as loop:
        rig.controller.submitted.clear()
        rig.database.reads = rig.database.writes = 5
        with Database.write(rig.database) as session:
            deployments.insert(session, new_row(rig.clock, rig.parts.sealer, "dep_2"))
        await asyncio.wait_for(rig.controller.submitted.wait(), TIMEOUT_SECONDS)
        assert not loop.done()


async def test_ends_when_cancelled_though_the_lease_cannot_be_given_back(rig: Rig) -> None:
    async with rig.leading() as loop:
        rig.database.reads = rig.database.writes = 10**9
        loop.cancel()
        await asyncio.wait({loop}, timeout=TIMEOUT_SECONDS)
        assert loop.cancelled()


async def test_gives_the_lease_back_at_the_end(rig: Rig) -> None:
    async with rig.leading():
        pass
    with rig.database.read() as session:
        lease = leases.get(session, LEADER_LEASE)
    assert lease is not None and lease.expires_at <= rig.clock.now()


async def test_accounts_are_kept_while_leading_and_a_fault_in_them_ends_nothing(rig: Rig) -> None:
    passes: list[bool] = []
    enough = asyncio.Event()

    async def account(guard: Guard) -> None:
        with rig.database.write() as session:
            guard(session)
        passes.append(True)
        if len(passes) == 3:
            enough.set()
        if len(passes) == 1:
            raise RuntimeError("a fault in the books")

    rig.parts = replace(rig.parts, account=account)
    async with rig.leading() as loop:
        await asyncio.wait_for(enough.wait(), TIMEOUT_SECONDS)
        assert not loop.done()


async def test_accounts_are_not_kept_by_who_lost_the_lease(rig: Rig) -> None:
    refused = asyncio.Event()

    async def account(guard: Guard) -> None:
        with rig.database.write() as session:
            session.connection().execute(text("UPDATE leases SET token = token + 1"))
        try:
            with rig.database.write() as session:
                guard(session)
        except StaleLease:
            refused.set()
            raise

    rig.parts = replace(rig.parts, account=account)
    loop = asyncio.create_task(lead_when_possible(rig.parts))
    try:
        await asyncio.wait_for(refused.wait(), TIMEOUT_SECONDS)
        assert not loop.done(), "it stops leading and tries to lead again"
    finally:
        loop.cancel()
        await asyncio.wait({loop}, timeout=TIMEOUT_SECONDS)
    assert loop.cancelled(), "although the lease was lost at the same moment"
