"""The SLA monitor's part of a worker. A part of the composition root."""

from __future__ import annotations

from dataclasses import dataclass

from api.settings import Settings
from engine.model import ids
from engine.model.clock import Clock
from engine.reconcilers.sla.apply import SlaMonitor
from engine.reconcilers.sla.probe import ChatProbe
from engine.store.database import Database
from engine.store.leases import LeaseFence
from engine.store.sealing import Sealer


@dataclass(frozen=True)
class SlaLeading:
    """Measures service levels whenever this process leads; called with the lease it then has."""

    settings: Settings
    database: Database
    clock: Clock
    sealer: Sealer

    async def __call__(self, fence: LeaseFence) -> None:
        """Measure until the lease is lost."""
        async with ChatProbe(self.clock) as probe:
            period = self.settings.sla_period_seconds
            await SlaMonitor(self.database, self.clock, self.sealer, fence, probe, ids.new_id, period).run()
