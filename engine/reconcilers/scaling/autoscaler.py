"""The autoscaler's two rounds: a check of every deployment's load, and, more often, a look for idle ones."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import structlog

from engine.model.clock import Clock
from engine.model.errors import StaleLease
from engine.reconcilers.scaling.apply import ScalingApplier
from engine.reconcilers.scaling.decide import decide, decide_sleep
from engine.reconcilers.scaling.observe import observe, observe_sleepers
from engine.reconcilers.scaling.scrape import Scraper
from engine.reconcilers.scaling.snapshot import Policy, Rescale, Sleep
from engine.store.database import Database

IDLE_SECONDS = 5.0
"""The shortest idle timeout there is: waiting longer between two looks would make it longer."""

_log = structlog.get_logger(__name__)


class Autoscaler:
    """Scales deployments and puts them to sleep. Loses nothing by being stopped: what it counts is in the database."""

    def __init__(
        self, database: Database, clock: Clock, scraper: Scraper, applier: ScalingApplier, policy: Policy
    ) -> None:
        self._database = database
        self._clock = clock
        self._scraper = scraper
        self._applier = applier
        self._policy = policy
        self._period = policy.period / timedelta(seconds=1)
        self._one_at_a_time = asyncio.Lock()  # both rounds write what is remembered of the same deployments

    async def run(self) -> None:
        """Check until cancelled, or until this process's lease is lost (StaleLease)."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_checking())
            group.create_task(self._keep(self.put_idle_to_sleep, min(self._period, IDLE_SECONDS)))

    async def _keep_checking(self) -> None:
        """At a fixed pace: three checks in a row mean the same time whatever asking the replicas takes."""
        due = self._clock.monotonic()
        while True:
            self._applier.fence.check()
            try:
                await self._scraper.scrape()
            except Exception:  # noqa: BLE001  the loop's edge: old measurements are better than no decisions
                _log.exception("replicas could not be asked for their metrics")
            await self._safely(self.check)
            now = self._clock.monotonic()
            due = max(due + self._period, now)
            await self._clock.sleep(due - now)

    async def _keep(self, work: Callable[[], list[Rescale | Sleep]], pause: float) -> None:
        while True:
            self._applier.fence.check()
            await self._safely(work)
            await self._clock.sleep(pause)

    async def _safely(self, work: Callable[[], list[Rescale | Sleep]]) -> None:
        try:
            async with self._one_at_a_time:
                changed = await asyncio.to_thread(work)
            for done in changed:
                to = done.to if isinstance(done, Rescale) else 0
                _log.info("scaled", deployment=done.snapshot.deployment_id, to=to, reason=done.reason)
        except StaleLease:
            raise
        except Exception:  # noqa: BLE001  the loop's edge: the next round decides anew from what is then so
            _log.exception("a round of the autoscaler failed")

    def check(self) -> list[Rescale | Sleep]:
        """One check of every deployment; returns what changed."""
        now = self._clock.now()
        with self._database.read() as session:
            snapshots = observe(session, now)
        return self._applier.apply(decide(snapshots, now=now, policy=self._policy))

    def put_idle_to_sleep(self) -> list[Rescale | Sleep]:
        """Put what runs for nobody to sleep; returns which."""
        now = self._clock.now()
        with self._database.read() as session:
            snapshots = observe_sleepers(session, now)
        return self._applier.apply(decide_sleep(snapshots, now=now))
