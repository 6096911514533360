from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from engine.store import orgs
from engine.store.database import Database
from engine.store.sealing import Sealer
from engine.webhooks.address import AddressRule
from engine.webhooks.deliveries import DeliveryLoop
from engine.webhooks.sender import WebhookSender
from tests.fakes.clock import FakeClock
from tests.fakes.rows import org_row
from tests.fakes.webhook_receiver import Receiver, receiving


@pytest.fixture
def sealer() -> Sealer:
    return Sealer(b"0123456789abcdef0123456789abcdef")


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as made:
        yield made


@pytest.fixture
def database(store: Database, clock: FakeClock) -> Database:
    with store.write() as session:
        orgs.insert(session, org_row(clock.now()))
    return store


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def loop(database: Database, clock: FakeClock, sealer: Sealer) -> AsyncIterator[DeliveryLoop]:
    async with WebhookSender(AddressRule.of("127.0.0.0/8"), clock) as sender:
        yield DeliveryLoop(database, sealer, sender, clock)
