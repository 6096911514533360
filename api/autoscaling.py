"""The autoscaler's part of a worker: its loops with this installation's numbers. A part of the composition root."""

from __future__ import annotations

from datetime import timedelta

from api.funding import refusals_to_grow
from api.settings import Settings
from engine.model.clock import Clock
from engine.reconcilers.scaling.apply import ScalingApplier
from engine.reconcilers.scaling.autoscaler import Autoscaler
from engine.reconcilers.scaling.scrape import AgentMeter, Scraper
from engine.reconcilers.scaling.snapshot import Policy
from engine.store.database import Database
from engine.store.leases import LeaseFence
from engine.store.sealing import Sealer


class ScalingLeading:
    """Scales deployments whenever this process leads; called with the lease it then has."""

    def __init__(self, settings: Settings, database: Database, clock: Clock, sealer: Sealer) -> None:
        self._settings = settings
        self._database = database
        self._clock = clock
        self._sealer = sealer

    async def __call__(self, fence: LeaseFence) -> None:
        """Scale until the lease is lost."""
        policy = policy_of(self._settings)
        applier = ScalingApplier(self._database, self._clock, self._sealer, fence, refusals_to_grow)
        budget = self._settings.autoscale_period_seconds / 2
        async with AgentMeter() as meter:
            scraper = Scraper(self._database, self._clock, self._sealer, meter, budget_seconds=budget)
            await Autoscaler(self._database, self._clock, scraper, applier, policy).run()


def policy_of(settings: Settings) -> Policy:
    """The autoscaler's numbers of this installation."""
    return Policy(
        period=timedelta(seconds=settings.autoscale_period_seconds),
        cooldown=timedelta(seconds=settings.autoscale_cooldown_seconds),
        down_cooldown=timedelta(seconds=settings.autoscale_down_cooldown_seconds),
        queue_depth=settings.autoscale_queue_depth,
    )
