"""One look at a deployment: observe, decide, apply. When looks are made is `reconcilers/loop.py`."""

from __future__ import annotations

import asyncio

from engine.model import ids
from engine.model.clock import Clock
from engine.reconcilers.deployments.apply import Applier, Outcome
from engine.reconcilers.deployments.decide import decide
from engine.reconcilers.deployments.observe import Observation, observe
from engine.reconcilers.deployments.outages import MachineWatch
from engine.reconcilers.loop import Looked, LookLoop
from engine.store import changes, deployments
from engine.store.database import Database


class DeploymentReconciler:
    """Looks at deployments.

    Args:
        period_seconds: every living deployment is looked at this often, hint or not.
    """

    def __init__(self, database: Database, clock: Clock, applier: Applier, *, period_seconds: float) -> None:
        self._database = database
        self._clock = clock
        self._applier = applier
        self.watch = MachineWatch(applier.inventory, applier.installation_tag, clock)
        looked = Looked(changes.DEPLOYMENT, deployments.living_ids, self.look)
        self._loop = LookLoop(database, clock, applier.fence, looked, period_seconds=period_seconds)

    async def run(self) -> None:
        """Reconcile until cancelled, or until this process's lease is lost (StaleLease)."""
        try:
            await self._loop.run()
        finally:
            await self.watch.close()

    def hint(self, deployment_id: str) -> None:
        """Look at a deployment as soon as possible."""
        self._loop.hint(deployment_id)

    async def look(self, deployment_id: str) -> Outcome | None:
        """One observe, decide, apply; None when the deployment is gone."""
        self.watch.keep_fresh()
        seen = await asyncio.to_thread(self._observe, deployment_id)
        if seen is None or seen.row.deleted_at is not None:
            return None
        new_ids = [ids.random_text(16) for _ in range(2 + 2 * seen.snapshot.spec.replicas)]
        actions = decide(seen.snapshot, now=self._clock.now(), new_ids=new_ids, policy=self._applier.policy)
        return await self._applier.apply(seen, actions)

    def _observe(self, deployment_id: str) -> Observation | None:
        with self._database.read() as session:
            return observe(session, deployment_id, self.watch.seen)
