"""The leader's pass over the money: whose machine costs what, until the cloud lists it no more."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import cast

import pytest
from sqlmodel import Session

from api.accounting import Accounting
from engine.deploy.providers.digitalocean.inventory import DROPLET, FIREWALL, OwnedResource
from engine.model.errors import CloudError
from engine.model.ledger import AccountKind
from engine.model.stack import owner_tag
from engine.reconcilers.cloud import DigitalOceanCloud
from engine.store import deployments, ledger, ledger_audit, orgs, usage
from engine.store.database import Database
from engine.store.migrate import migrate
from engine.store.tables import UsageIntervalRow
from tests.fakes.clock import START, FakeClock
from tests.fakes.rows import deployment_row, org_row

TAG = "stackyard-installation:inst_1"


class ListedCloud:
    """Lists what it is told to, or does not answer."""

    def __init__(self) -> None:
        self.listed: Sequence[OwnedResource] | None = ()

    async def resources(self, installation_tag: str) -> Sequence[OwnedResource]:
        if self.listed is None:
            raise CloudError("no answer", status=0, request="GET /v2/droplets")
        return self.listed


def allowed(_session: Session) -> None:
    """The guard of who leads."""


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/stackyard.db")
    migrate(database)
    yield database
    database.close()


async def test_a_pass_posts_what_customers_used_and_what_machines_cost(database: Database) -> None:
    clock = FakeClock()
    with database.write() as session:
        orgs.insert(session, org_row(START))
        deployments.insert(session, deployment_row(START))
        row = UsageIntervalRow(
            id="use_1", org_id="org_1", deployment_id="dep_1", replica="r", gpu_type="h100", hourly_rate_usd="4.41",
            started_at=START,
        )  # fmt: skip
        usage.insert(session, row)
    cloud = ListedCloud()
    tags = (TAG, owner_tag("dep_1"))
    cloud.listed = [
        OwnedResource(DROPLET, "1", "r", tags, START, Decimal("3.39")),
        OwnedResource(DROPLET, "2", "other", (TAG, owner_tag("dep_unknown")), START, Decimal("3.39")),
        OwnedResource(DROPLET, "3", "not ours", (owner_tag("dep_1"),), START, Decimal("3.39")),
        OwnedResource(FIREWALL, "4", "r", tags, START),
    ]
    account = Accounting(database, clock, cast(DigitalOceanCloud, cloud), TAG)

    async def books(hours: float) -> tuple[int, int]:
        clock.advance((START + timedelta(hours=hours) - clock.now()).total_seconds())
        await account(allowed)
        with database.read() as session:
            assert ledger_audit.verify(session) == []
            have = ledger.accounts(session, "org_1")
        return have[AccountKind.REVENUE], have[AccountKind.OPERATOR_COST]

    assert await books(0) == (0, 0)
    assert await books(1) == (4_410_000, 3_390_000)
    with database.write() as session:
        usage.close(session, "dep_1", "r", START + timedelta(hours=1.5))
    cloud.listed = None  # no answer: nothing is known to be gone
    assert await books(2) == (6_615_000, 6_780_000)
    cloud.listed = []
    assert await books(2.5) == (6_615_000, 8_475_000)
    assert await books(9) == (6_615_000, 8_475_000)
