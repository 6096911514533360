"""The own weights' part of a worker: their reconciler. A part of the composition root."""

from __future__ import annotations

from engine.byom.models import OwnWeights
from engine.reconcilers.byom.apply import ByomApplier
from engine.reconcilers.byom.machines import ModelAgents
from engine.reconcilers.byom.reconciler import ByomReconciler
from engine.store.leases import LeaseFence
from engine.store.sealing import Sealer


class ByomLeading:
    """Reconciles own weights whenever this process leads; called with the lease it then has."""

    def __init__(self, weights: OwnWeights, sealer: Sealer, period_seconds: float) -> None:
        self._weights = weights
        self._sealer = sealer
        self._period = period_seconds

    async def __call__(self, fence: LeaseFence) -> None:
        """Reconcile until the lease is lost."""
        async with ModelAgents() as agents:
            applier = ByomApplier(self._weights, self._sealer, agents, fence)
            await ByomReconciler(applier, period_seconds=self._period).run()
