"""One look at own weights: an upload's, or a deployment's. When looks are made is `reconcilers/loop.py`."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from engine.reconcilers.byom.apply import ByomApplier
from engine.reconcilers.byom.decide import decide, decide_upload
from engine.reconcilers.byom.observe import Observation, observe, observe_upload
from engine.reconcilers.byom.snapshot import UploadView
from engine.reconcilers.deployments.apply import Outcome
from engine.reconcilers.loop import Looked, LookLoop
from engine.store import byom, changes
from engine.store.byom_tables import ByomModelRow

MODEL = "byom_"


class ByomReconciler:
    """Looks at models (`byom_…`: their bytes) and at deployments that serve some (`dep_…`: their machines).

    Args:
        period_seconds: everything is looked at this often, hint or not.
    """

    def __init__(self, applier: ByomApplier, *, period_seconds: float) -> None:
        self._applier = applier
        self._database, clock = applier.weights.storage.database, applier.weights.storage.clock
        self._clock = clock
        looked = Looked(changes.BYOM, byom.living_keys, self.look)
        self._loop = LookLoop(self._database, clock, applier.fence, looked, period_seconds=period_seconds)

    async def run(self) -> None:
        """Reconcile until cancelled, or until this process's lease is lost (StaleLease)."""
        await self._loop.run()

    async def look(self, key: str) -> Outcome | None:
        """One observe, decide, apply; None when there is nothing to look at any more."""
        if key.startswith(MODEL):
            return await self._look_at_upload(key)
        seen = await asyncio.to_thread(self._observe, key)
        if seen is None:
            return None
        snapshot = seen.snapshot
        if not snapshot.is_leaving:
            looks = await self._applier.agents.looks(snapshot.replicas, self._applier.credentials(seen))
            replicas = tuple(replace(replica, look=looks[replica.name]) for replica in snapshot.replicas)
            snapshot = replace(snapshot, replicas=replicas)
        return await self._applier.apply(seen, snapshot.replicas, decide(snapshot, now=self._clock.now()))

    async def _look_at_upload(self, model_id: str) -> Outcome | None:
        found = await asyncio.to_thread(self._observe_upload, model_id)
        if found is None:
            return None
        row, view = found
        return await self._applier.apply_upload(row, decide_upload(view))

    def _observe(self, deployment_id: str) -> Observation | None:
        with self._database.read() as session:
            return observe(session, deployment_id)

    def _observe_upload(self, model_id: str) -> tuple[ByomModelRow, UploadView] | None:
        with self._database.read() as session:
            row = byom.get(session, model_id)
            return None if row is None or row.deleted_at is not None else (row, observe_upload(session, row))
