"""The SLA monitor's loop: looks at all deployments with targets, probes the idle ones, records and tells.

A measurement, the breaches in it and the messages about them are one transaction, under the leader's lease.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, assert_never

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session

from engine.model.clock import Clock
from engine.model.deployment import ReplicaPhase
from engine.model.errors import StaleLease
from engine.reconcilers.deployments.probe import Credentials
from engine.reconcilers.sla.decide import after_probe, decide, floor_minute, judge
from engine.reconcilers.sla.observe import observe
from engine.reconcilers.sla.probe import ChatProbe
from engine.reconcilers.sla.snapshot import Action, Breach, Judge, Measured, Probe, Rest, Source, Unasked, Watched
from engine.store import deployments, leases, sla
from engine.store.database import Database
from engine.store.leases import LeaseFence
from engine.store.sealing import CannotOpen, Sealer
from engine.store.tables import DeploymentRow
from engine.store.traffic_tables import SlaBreachRow, SlaStateRow
from engine.webhooks.events import Event, publish

ROWS_PER_TRANSACTION = 100

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class SlaMonitor:
    """Measures while this process leads.

    Attributes:
        probe: an open connection pool.
        new_id: makes ids of breaches.
    """

    database: Database
    clock: Clock
    sealer: Sealer
    fence: LeaseFence
    probe: ChatProbe
    new_id: Callable[[str], str]
    period_seconds: float

    async def run(self) -> None:
        """Measure until cancelled, or until this process's lease is lost (StaleLease)."""
        while True:
            self.fence.check()
            try:
                await self.look()
            except StaleLease:
                raise
            except SQLAlchemyError as err:
                _log.warning("service levels were not measured, the next look makes it good", error=str(err))
            except Exception:  # noqa: BLE001  the loop's edge: an error here must not stop the other reconcilers
                _log.exception("service levels were not measured")
            await self.clock.sleep(self.period_seconds)

    async def look(self) -> None:
        """One observe, decide, apply over all deployments: what traffic told first, probes as they end."""
        now = self.clock.now()
        judged: list[tuple[Watched, Measured]] = []
        probing = []
        for watched, action in await asyncio.to_thread(self._decide, now):
            match action:
                case Judge(measured):
                    judged.append((watched, measured))
                case Probe():
                    probing.append(self._probe(watched, action, now))
                case Rest():
                    pass
                case _:
                    assert_never(action)
        for start in range(0, len(judged), ROWS_PER_TRANSACTION):
            await asyncio.to_thread(self._record, judged[start : start + ROWS_PER_TRANSACTION], now)
        for error in await asyncio.gather(*probing, return_exceptions=True):
            if isinstance(error, BaseException):
                raise error

    async def _probe(self, watched: Watched, asked: Probe, now: datetime) -> None:
        try:
            token = self.sealer.open(watched.token_sealed)
        except CannotOpen as err:
            _log.warning("a deployment cannot be probed", deployment_id=watched.deployment_id, error=str(err))
            return
        begun = self.clock.now()
        outcome = await self.probe.ask(
            asked.replicas, watched.model, Credentials(watched.fingerprint, token), limit_seconds=asked.limit_seconds
        )
        if isinstance(outcome, Unasked):
            _log.debug("a probe told nothing", deployment_id=watched.deployment_id, reason=outcome.reason)
        measured = after_probe(asked, outcome, begun=begun, ended=self.clock.now())
        if measured is not None:
            await asyncio.to_thread(self._record, [(watched, measured)], now)

    def _decide(self, now: datetime) -> list[tuple[Watched, Action]]:
        with self.database.read() as session:
            seen = observe(session, now)
        return [(watched, decide(watched)) for watched in seen]

    def _record(self, found: Sequence[tuple[Watched, Measured]], now: datetime) -> None:
        """Note measurements as of the look's own time, which the next look's window begins with."""
        with self.database.write() as session:
            if not leases.is_held(session, self.fence.lease, self.clock.now(), lock=True):
                raise StaleLease(f"the lease {self.fence.lease.name} ran out or was taken over")
            states = []
            for watched, measured in found:
                breaches = judge(watched.targets, measured)
                if breaches and not _holds_still(session, watched, measured):
                    continue
                states.append(_state(watched, measured, now))
                for breach in breaches:
                    self._tell(session, watched, breach, now)
            sla.record(session, states)

    def _tell(self, session: Session, watched: Watched, breach: Breach, now: datetime) -> None:
        row = SlaBreachRow(
            id=self.new_id("brc"), deployment_id=watched.deployment_id, at=now, metric=breach.metric.value,
            target=breach.target, measured=breach.measured, source=breach.source.value,
        )  # fmt: skip
        sla.add_breach(session, row)
        publish(
            session, self.sealer, org_id=watched.org_id, deployment_id=watched.deployment_id, event=Event.SLA_BREACH,
            data=_news(breach, row.id), key=_key(breach, now), now=now,
        )  # fmt: skip


def _state(watched: Watched, measured: Measured, now: datetime) -> SlaStateRow:
    tps = measured.stream_tps if measured.throughput_tps is None else measured.throughput_tps
    return SlaStateRow(
        deployment_id=watched.deployment_id, measured_at=now, source=measured.source.value,
        last_ttft_ms=measured.ttft_ms, last_throughput_tps=tps,
    )  # fmt: skip


def _holds_still(session: Session, watched: Watched, measured: Measured) -> bool:
    """Whether the deployment is as it was judged; locks its row, which keeps messages about it in order.

    Not so when its targets were edited, when it sleeps or leaves, and when a probe was not answered because all who
    could were taken away on purpose.
    """
    row = session.get(DeploymentRow, watched.deployment_id, with_for_update=True)
    if row is None or row.delete_requested_at or row.suspended_at or row.asleep_since:
        return False
    kept = {r["name"] for r in row.replicas if r.get("phase") != ReplicaPhase.DRAINING}
    if measured.reason and not any(replica.name in kept for replica in watched.ready):
        return False
    return deployments.sla_of(row) == watched.targets


def _key(breach: Breach, now: datetime) -> str:
    """One message a minute and target: of traffic by the minute it judged last, of a probe by its own."""
    minute = floor_minute(now) if breach.source is Source.PROBE else breach.window.until
    return f"sla:{minute.isoformat()}:{breach.metric}"


def _news(breach: Breach, breach_id: str) -> dict[str, Any]:
    told = {
        "breach_id": breach_id, "metric": breach.metric.value, "target": breach.target, "measured": breach.measured,
        "source": breach.source.value,
        "window": {"from": breach.window.since.isoformat(), "until": breach.window.until.isoformat()},
    }  # fmt: skip
    return told | ({"reason": breach.reason} if breach.reason else {})
