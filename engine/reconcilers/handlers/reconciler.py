"""One look at a handler deployment: observe, decide, apply. The loop around it is `reconcilers/loop.py`."""

from __future__ import annotations

import asyncio

from engine.model import ids
from engine.model.clock import Clock
from engine.reconcilers.deployments.apply import Outcome
from engine.reconcilers.handlers.apply import HandlerApplier
from engine.reconcilers.handlers.decide import decide
from engine.reconcilers.handlers.observe import HandlerObservation, observe
from engine.reconcilers.loop import Looked, LookLoop
from engine.store import changes, handlers
from engine.store.database import Database


class HandlerReconciler:
    """Looks at handler deployments.

    Args:
        period_seconds: every living one is looked at this often, hint or not.
    """

    def __init__(self, database: Database, clock: Clock, applier: HandlerApplier, *, period_seconds: float) -> None:
        self._database = database
        self._clock = clock
        self._applier = applier
        looked = Looked(changes.HANDLER, handlers.living_ids, self.look)
        self._loop = LookLoop(database, clock, applier.fence, looked, period_seconds=period_seconds)

    async def run(self) -> None:
        """Reconcile until cancelled, or until this process's lease is lost (StaleLease)."""
        await self._loop.run()

    async def look(self, handler_id: str) -> Outcome | None:
        """One observe, decide, apply; None when it is gone."""
        seen = await asyncio.to_thread(self._observe, handler_id)
        if seen is None or seen.row.deleted_at is not None:
            return None
        actions = decide(
            seen.snapshot, now=self._clock.now(), new_ids=[ids.random_text(16)], policy=self._applier.policy
        )
        return await self._applier.apply(seen, actions)

    def _observe(self, handler_id: str) -> HandlerObservation | None:
        with self._database.read() as session:
            return observe(session, handler_id, self._applier.places_of, self._applier.book)
