"""The leader's periodic work on money: what the cloud lists, then everything that is due. Composes, decides nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta

import structlog
from sqlmodel import Session

from engine.billing import operator_cost, spend
from engine.billing.operator_cost import Machine
from engine.billing.settling import Report, settle_everything, verify_daily
from engine.deploy.providers.digitalocean.inventory import DROPLET, OwnedResource
from engine.model.clock import Clock
from engine.model.errors import CloudError
from engine.model.stack import deployment_id
from engine.reconcilers.cloud import DigitalOceanCloud
from engine.reconcilers.sweep.sweeper import owner_of
from engine.store import owners
from engine.store.database import Database

Guard = Callable[[Session], None]

_log = structlog.get_logger(__name__)


class Accounting:
    """Called by the leader, with a guard that fails once another process leads."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        cloud: DigitalOceanCloud,
        installation_tag: str,
        *,
        grace: timedelta = spend.GRACE,
        tell: spend.Tell = spend.silent,
        storage: Callable[[Guard], None] = lambda _: None,
    ) -> None:
        self._database = database
        self._clock = clock
        self._cloud = cloud
        self._tag = installation_tag
        self._grace = grace
        self._warn = tell
        self._storage = storage

    async def __call__(self, guard: Guard) -> None:
        """One pass. A cloud that does not answer leaves its part to the next one: nothing is gone then."""
        listed_at = self._clock.now()
        try:
            listed = await self._cloud.resources(self._tag)
        except CloudError as err:
            _log.warning("machines were not listed for their cost", error=err.message)
        else:
            await asyncio.to_thread(self._observe, listed, listed_at, guard)
        await asyncio.to_thread(self._storage, guard)
        report = await asyncio.to_thread(
            settle_everything,
            self._database,
            self._clock.now(),
            grace=self._grace,
            guard=guard,
            tell=self._warn,
        )
        _tell(report)
        for finding in await asyncio.to_thread(verify_daily, self._database, self._clock.now(), guard=guard) or ():
            _log.error("the books contradict themselves", subject=finding.subject, problem=finding.message)

    def _observe(self, listed: Sequence[OwnedResource], listed_at: datetime, guard: Guard) -> None:
        with self._database.write() as session:
            operator_cost.observe(session, machines(session, listed, listed_at, self._tag), listed_at=listed_at)
            guard(session)


def machines(
    session: Session, listed: Iterable[OwnedResource], listed_at: datetime, installation_tag: str
) -> list[Machine]:
    """The machines of a listing whose owner is known here; others are the sweeper's business."""
    found: list[Machine] = []
    for resource in listed:
        stack = owner_of(resource)
        if resource.kind != DROPLET or stack is None or installation_tag not in resource.tags:
            continue
        row = owners.get(session, deployment_id(stack))
        if row is not None:
            began = resource.created_at or listed_at
            found.append(Machine(f"{DROPLET}/{resource.id}", row.org_id, row.id, resource.hourly_usd, began))
    return found


def _tell(report: Report) -> None:
    for change in report.changes:
        _log.warning(
            "an organisation's standing changed", org=change.org_id, before=change.before, after=change.after.state
        )
    if report.usage.records or report.intervals.transactions:
        _log.info("posted usage", records=report.usage.records, intervals=report.intervals.transactions)
