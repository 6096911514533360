"""Performs what was decided about scaling and sleep, and records it once. Chooses nothing but to drop what is old."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime

from sqlmodel import Session

from engine.model.clock import Clock
from engine.model.errors import StaleLease
from engine.reconcilers.deployments.apply import LeaderFence
from engine.reconcilers.scaling.decide import why_idle
from engine.reconcilers.scaling.observe import again
from engine.reconcilers.scaling.snapshot import Action, Memory, Remember, Rescale, Sleep, Snapshot
from engine.store import autoscaling, deployments, leases
from engine.store.database import Database
from engine.store.sealing import Sealer
from engine.webhooks.events import Event, publish

Refusals = Callable[[Session, str, Sequence[str], datetime], Mapping[str, str]]
"""(session, organisation, deployments that would grow by one replica each, now) → why not, where there is no money."""

AT_ONCE = 25
"""Changes in one transaction: others wait for it while it writes."""


@dataclass(frozen=True)
class ScalingApplier:
    """Performs actions.

    Attributes:
        refusals: who cannot pay for a replica more.
        fence: of the reconcilers' lease: a process that lost it writes nothing.
    """

    database: Database
    clock: Clock
    sealer: Sealer
    fence: LeaderFence
    refusals: Refusals

    def apply(self, actions: Iterable[Action]) -> list[Rescale | Sleep]:
        """Perform and record; returns what was done. What was edited meanwhile is left: decide anew."""
        memory: dict[str, Memory] = {}
        changes: dict[str, list[Rescale | Sleep]] = defaultdict(list)
        for action in actions:
            match action:
                case Remember(deployment_id, kept):
                    memory[deployment_id] = kept
                case Rescale() | Sleep():
                    changes[action.snapshot.org_id].append(action)
        self._remember(memory)
        done: list[Rescale | Sleep] = []
        for org_id, wanted in changes.items():
            wanted.sort(key=lambda action: action.snapshot.deployment_id)  # rows are locked in one order
            for start in range(0, len(wanted), AT_ONCE):
                done += self._change(org_id, wanted[start : start + AT_ONCE])
        return done

    def _remember(self, memory: Mapping[str, Memory]) -> None:
        if not memory:
            return
        with self.database.write() as session:
            autoscaling.remember(session, {id: asdict(kept) for id, kept in memory.items()})
            self._check_lease(session)

    def _change(self, org_id: str, actions: Sequence[Rescale | Sleep]) -> list[Rescale | Sleep]:
        """Changes of one organisation: they count on the same money."""
        now = self.clock.now()
        with self.database.write() as session:
            growing = [a.snapshot.deployment_id for a in actions if isinstance(a, Rescale) and a.to > a.snapshot.wanted]
            refused = self.refusals(session, org_id, growing, now) if growing else {}
            memory: dict[str, Memory] = {}
            done: list[Rescale | Sleep] = []
            for action in actions:
                id = action.snapshot.deployment_id
                if why := refused.get(id):
                    memory[id] = replace(
                        action.snapshot.memory, scaled_at=now, checked_at=now, reason=f"not scaled up: {why}"
                    )  # fmt: skip
                elif self._perform(session, action, now):
                    done.append(action)
                    memory[id] = Memory(scaled_at=now, reason=action.reason, checked_at=now)
            autoscaling.remember(session, {id: asdict(kept) for id, kept in memory.items()})
            self._check_lease(session)
        return done

    def _perform(self, session: Session, action: Rescale | Sleep, now: datetime) -> bool:
        s = action.snapshot
        match action:
            case Rescale(_, to):
                done = deployments.rescale(session, s.deployment_id, s.spec, to, generation=s.generation, now=now)
            case Sleep():
                idle = why_idle(again(session, s, now), now)
                done = bool(idle) and deployments.put_to_sleep(
                    session, s.deployment_id, generation=s.generation, now=now
                )
        if done:
            publish(
                session, self.sealer, org_id=s.org_id, deployment_id=s.deployment_id, event=Event.SCALED,
                data=_news(s, _to(action), action.reason), key=f"scaled:g{s.generation + 1}", now=now,
            )  # fmt: skip
        return done

    def _check_lease(self, session: Session) -> None:
        """The fence answers from memory; what is written asks the database, in the transaction that writes."""
        lease = self.fence.lease
        if not leases.is_held(session, lease, self.clock.now()):
            raise StaleLease(f"the lease {lease.name} (token {lease.token}) ran out or was taken over")


def _to(action: Rescale | Sleep) -> int:
    return action.to if isinstance(action, Rescale) else 0


def _news(s: Snapshot, to: int, reason: str) -> dict[str, int | float | str | None]:
    return {
        "from": s.wanted,
        "to": to,
        "reason": reason,
        "queue_depth": round(s.load.queue / s.ready, 2) if s.ready else 0.0,
        "latency_ms": s.load.latency_ms,
    }
