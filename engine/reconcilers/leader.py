"""The loops one process of an installation runs: reconciling, sweeping, housekeeping. Who holds the lease leads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session

from engine.controller.controller import Controller
from engine.controller.keeper import LeaseKeeper
from engine.identity import forgetting
from engine.model.clock import Clock
from engine.model.errors import StaleLease
from engine.model.fence import Fence
from engine.reconcilers.deployments.apply import Applier
from engine.reconcilers.deployments.probe import HealthProbe
from engine.reconcilers.deployments.reconciler import DeploymentReconciler
from engine.reconcilers.deployments.snapshot import Policy
from engine.reconcilers.inventory import Inventory
from engine.reconcilers.sweep.sweeper import Sweeper
from engine.store import autoscaling, changes, leases, sla, traffic, updates, webhooks
from engine.store.database import Database
from engine.store.leases import LeaseFence
from engine.store.sealing import Sealer

LEADER_LEASE = "reconcilers"
CANDIDATE_SECONDS = 1.0
HOUSEKEEPING_SECONDS = 3600.0
KEEP_CHANGES = timedelta(days=1)
KEEP_FAILURES = timedelta(days=30)
KEEP_EXECUTORS = timedelta(days=90)
KEEP_DELIVERIES = timedelta(days=7)
KEEP_BREACHES = timedelta(days=30)
LONGEST_GRACE = timedelta(seconds=60)
Guard = Callable[[Session], None]
"""Called inside a transaction that writes; raises `StaleLease` when another process leads."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class LeaderParts:
    """What leading needs.

    Attributes:
        installation_tag: on every cloud resource of this installation.
        hourly_usd: price of one replica of a GPU type.
        kinds: reconcilers of other kinds of rows (pods, handlers): each is made for a lease and runs until it is lost.
        account: the periodic work on money, one pass; None: nobody is billed here. Money is posted by the hour; its
            period is how late an end, an expiry or an empty balance may be seen.
    """

    database: Database
    clock: Clock
    sealer: Sealer
    controller: Controller
    inventory: Inventory
    installation_tag: str
    hourly_usd: Callable[[str], Decimal]
    policy: Policy
    reconcile_period_seconds: float
    sweep_period_seconds: float
    kinds: tuple[Callable[[LeaseFence], Coroutine[Any, Any, None]], ...] = ()
    account: Callable[[Guard], Awaitable[None]] | None = None
    accounting_period_seconds: float = 60.0


async def lead_when_possible(parts: LeaderParts) -> None:
    """Lead whenever the lease can be had, until cancelled. A database that is away is waited for."""
    while True:
        try:
            await _lead_apart(parts)
        except* SQLAlchemyError as errors:
            _log.warning("cannot lead while the database is away", error=str(errors.exceptions[0]))
        await parts.clock.sleep(CANDIDATE_SECONDS)


async def _lead_apart(parts: LeaderParts) -> None:
    """Lead once in a task of its own.

    Before Python 3.13 a task group forgets its task's cancellation when that comes with the failure of one in it.
    """
    leading = asyncio.create_task(_lead_once(parts))
    try:
        await asyncio.wait({leading})
    except asyncio.CancelledError:
        leading.cancel()
        await asyncio.gather(leading, return_exceptions=True)
        raise
    leading.result()


async def _lead_once(parts: LeaderParts) -> None:
    keeper = parts.controller.keeper
    fence = await asyncio.to_thread(keeper.take, LEADER_LEASE)
    if fence is None:
        return
    _log.info("leading the reconcilers", token=fence.token)
    try:
        await _lead(parts, fence)
    finally:
        await asyncio.to_thread(_give_back, keeper, fence)


def _give_back(keeper: LeaseKeeper, fence: LeaseFence) -> None:
    """Must not raise: it would take the place of the cancellation that ends leading."""
    try:
        keeper.give_back(fence)
    except SQLAlchemyError as err:
        _log.warning("the lease was not given back, it runs out by itself", lease=fence.lease.name, error=str(err))


async def _lead(parts: LeaderParts, fence: LeaseFence) -> None:
    """All loops, until one of them finds that the lease is gone."""
    async with HealthProbe() as probe:
        applier = Applier(
            database=parts.database,
            clock=parts.clock,
            sealer=parts.sealer,
            probe=probe,
            inventory=parts.inventory,
            installation_tag=parts.installation_tag,
            submit=parts.controller.submit,
            hourly_usd=parts.hourly_usd,
            fence=fence,
            policy=parts.policy,
        )
        reconciler = DeploymentReconciler(
            parts.database, parts.clock, applier, period_seconds=parts.reconcile_period_seconds
        )
        sweeper = Sweeper(
            database=parts.database,
            clock=parts.clock,
            inventory=parts.inventory,
            installation_tag=parts.installation_tag,
            submit=parts.controller.submit,
            fence=fence,
            period_seconds=parts.sweep_period_seconds,
            grace=min(LONGEST_GRACE, timedelta(seconds=parts.sweep_period_seconds)),
        )
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(reconciler.run())
                group.create_task(sweeper.run())
                for reconcile in parts.kinds:
                    group.create_task(reconcile(fence))
                group.create_task(_keep_house(parts, fence))
                if parts.account is not None:
                    group.create_task(_keep_accounts(parts, parts.account, fence))
        except* StaleLease:
            _log.warning("no longer leading the reconcilers")


async def _keep_house(parts: LeaderParts, fence: Fence) -> None:
    while True:
        fence.check()
        try:
            await asyncio.to_thread(prune, parts.database, parts.clock.now())
        except SQLAlchemyError as err:
            _log.warning("housekeeping failed", error=str(err))
        await parts.clock.sleep(HOUSEKEEPING_SECONDS)


async def _keep_accounts(parts: LeaderParts, account: Callable[[Guard], Awaitable[None]], fence: LeaseFence) -> None:
    def guard(session: Session) -> None:
        if not leases.is_held(session, fence.lease, parts.clock.now()):
            raise StaleLease(f"the lease {fence.lease.name} (token {fence.token}) ran out or was taken over")

    while True:
        fence.check()
        try:
            await account(guard)
        except StaleLease:
            raise
        except SQLAlchemyError as err:
            _log.warning("accounting failed, the next pass makes it good", error=str(err))
        except Exception as err:  # noqa: BLE001  (the loop's edge: an error in the books must not stop the reconcilers)
            _log.error("accounting failed", exc_info=err)
        await parts.clock.sleep(parts.accounting_period_seconds)


def prune(database: Database, now: datetime) -> None:
    """Forget what nobody asks for any more."""
    with database.write() as session:
        changes.prune(session, now - KEEP_CHANGES)
        updates.prune(session, now - KEEP_FAILURES)
        leases.prune_executors(session, now - KEEP_EXECUTORS)
        forgetting.prune(session, now)
        webhooks.prune(session, now - KEEP_DELIVERIES)
        traffic.prune(session, now)
        autoscaling.prune(session)
        sla.prune(session, now - KEEP_BREACHES)
    is_left = True
    while is_left:
        with database.write() as session:
            is_left = traffic.prune_a_minute(session, now)
