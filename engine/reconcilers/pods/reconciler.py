"""One look at a pod: observe, decide, apply. The loop around it is `reconcilers/loop.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from engine.model import ids
from engine.model.clock import Clock
from engine.reconcilers.deployments.apply import Outcome
from engine.reconcilers.loop import Looked, LookLoop
from engine.reconcilers.pods.apply import PodApplier
from engine.reconcilers.pods.decide import decide
from engine.reconcilers.pods.observe import PodObservation, observe
from engine.store import changes, pods
from engine.store.database import Database

IDS_PER_LOOK = 4


class PodReconciler:
    """Looks at pods.

    Args:
        refresh_market: brings what is known of the targets' capacity up to date, if it is old.
        period_seconds: every living pod is looked at this often, hint or not.
    """

    def __init__(
        self,
        database: Database,
        clock: Clock,
        applier: PodApplier,
        *,
        refresh_market: Callable[[], Awaitable[object]],
        period_seconds: float,
    ) -> None:
        self._database = database
        self._clock = clock
        self._applier = applier
        self._refresh_market = refresh_market
        looked = Looked(changes.POD, pods.living_ids, self.look)
        self._loop = LookLoop(database, clock, applier.fence, looked, period_seconds=period_seconds)

    async def run(self) -> None:
        """Reconcile until cancelled, or until this process's lease is lost (StaleLease)."""
        await self._loop.run()

    async def look(self, pod_id: str) -> Outcome | None:
        """One observe, decide, apply; None when the pod is gone."""
        await self._refresh_market()
        seen = await asyncio.to_thread(self._observe, pod_id)
        if seen is None or seen.row.deleted_at is not None:
            return None
        new_ids = [ids.random_text(16) for _ in range(IDS_PER_LOOK)]
        actions = decide(seen.snapshot, now=self._clock.now(), new_ids=new_ids, policy=self._applier.policy)
        return await self._applier.apply(seen, actions)

    def _observe(self, pod_id: str) -> PodObservation | None:
        with self._database.read() as session:
            return observe(session, pod_id, self._applier.find_room)
