"""What the cloud's listing says of deployments' machines: off, archived or gone. One listing serves all deployments."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import structlog

from engine.model.clock import Clock
from engine.model.deployment import Machine, Replica, ReplicaPhase
from engine.model.errors import CloudError
from engine.reconcilers.deployments.snapshot import Outage
from engine.reconcilers.inventory import Inventory

LISTING_SECONDS = 20.0
"""How often all machines are listed: two calls per two hundred of them, of some four thousand an hour."""

MACHINES_PER_SECOND = 20
"""Where there are very many, listings are further apart: a thousand machines every 50 s."""

_DOWN = {"off": "its machine is switched off", "archive": "its machine is archived"}
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class CloudView:
    """Two listings, the newer one first.

    Attributes:
        states: machine's id → the cloud's word for its state.
        listed_at: when that listing began.
        before: ids of the listing before; None: there was none yet.
        before_at: when that one began.
    """

    states: Mapping[str, str]
    listed_at: datetime
    before: frozenset[str] | None = None
    before_at: datetime | None = None


@dataclass
class MachineWatch:
    """Lists all machines, when somebody asks for it and the last listing is old.

    Attributes:
        seen: what it last found; None before it found anything.
    """

    inventory: Inventory
    installation_tag: str
    clock: Clock
    period_seconds: float = LISTING_SECONDS
    seen: CloudView | None = field(default=None, init=False)
    _due: float = field(default=float("-inf"), init=False)
    _listing: asyncio.Task[None] | None = field(default=None, init=False)

    def keep_fresh(self) -> None:
        """Begin a listing in the background if one is due; nobody waits for it."""
        now = self.clock.monotonic()
        if now >= self._due and (self._listing is None or self._listing.done()):
            machines = len(self.seen.states) if self.seen is not None else 0
            self._due = now + max(self.period_seconds, machines / MACHINES_PER_SECOND)
            self._listing = asyncio.create_task(self._look_safely())

    async def settled(self) -> None:
        """Wait for the listing that is under way, if one is."""
        if self._listing is not None:
            await asyncio.gather(self._listing, return_exceptions=True)

    async def close(self) -> None:
        """End a listing that is under way."""
        if self._listing is not None:
            self._listing.cancel()
            await self.settled()

    async def _look_safely(self) -> None:
        try:
            await self.look()
        except CloudError as err:  # says nothing about machines
            _log.warning("the machines could not be listed", error=err.message)

    async def look(self) -> None:
        """One listing.

        Raises:
            CloudError: the cloud did not answer.
        """
        listed_at = self.clock.now()
        states = await self.inventory.machine_states(self.installation_tag)
        last = self.seen
        self.seen = CloudView(
            states, listed_at, frozenset(last.states) if last else None, last.listed_at if last else None
        )


def outages_of(
    seen: CloudView, machines: Sequence[Machine], replicas: Sequence[Replica], outputs: Sequence[Mapping[str, str]]
) -> dict[str, Outage]:
    """Which of a deployment's machines the cloud says cannot serve, by name.

    Args:
        outputs: what its stack says exists: `id` and `name` of each machine.
    """
    known = {r.id: r for r in replicas}
    made = {m.name: m.exists_since for m in machines}
    found = {}
    for output in outputs:
        exists_since, replica = made.get(output["name"]), known.get(output["id"])
        if exists_since is None or replica is None or _answered_since(replica, seen):
            continue
        state = seen.states.get(output["id"])
        if state in _DOWN:
            found[output["name"]] = Outage(_DOWN[state], seen.listed_at, is_gone=False)
        elif state is None and _is_gone(replica, exists_since, seen):
            found[output["name"]] = Outage("its machine is gone", seen.listed_at, is_gone=True)
    return found


def _answered_since(replica: Replica, seen: CloudView) -> bool:
    """A machine that answered after the listing began is up, whatever the listing says."""
    return not replica.failed_checks and replica.checked_at is not None and replica.checked_at > seen.listed_at


def _is_gone(replica: Replica, exists_since: datetime, seen: CloudView) -> bool:
    """A listing may not have a new machine yet: it takes two of them, or one and silence."""
    if exists_since >= seen.listed_at:
        return False
    if replica.failed_checks and replica.phase is not ReplicaPhase.BOOTING:
        return True
    return seen.before is not None and replica.id not in seen.before and (seen.before_at or exists_since) > exists_since
