"""Which cloud resources have no owner, and which owners lost a resource. Pure: lists and deletes nothing itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

MACHINE = "droplet"
"""The kind whose ids the stacks' outputs name, so that a surplus or a missing one can be told."""

VOLUME = "volume"
"""Holds what users keep: only deleted when its owner is known to be gone, never because a database lacks the row."""


@dataclass(frozen=True)
class Found:
    """One resource as the cloud lists it.

    Attributes:
        owner: the stack its owner tag names.
        is_ours: it carries this installation's tag. Firewalls and tags cannot: they are ours when we know their owner.
    """

    kind: str
    id: str
    name: str
    owner: str
    is_ours: bool

    @property
    def key(self) -> str:
        return f"{self.kind}/{self.id}"


@dataclass(frozen=True)
class Owner:
    """One deployment that is not gone.

    Attributes:
        machines: ids of the machines its stack says exist; None before its first operation succeeded.
        settled_since: when that was established; None while it is not.
        busy: an operation is queued or running: the stack and the cloud may differ for good reasons.
        is_leaving: it is being torn down.
    """

    deployment_id: str
    stack: str
    machines: frozenset[str] | None
    settled_since: datetime | None
    busy: bool
    is_leaving: bool


@dataclass(frozen=True)
class SweepSnapshot:
    """A cloud's list and our rows, read in this order: a resource in the list has its row already.

    Attributes:
        listed_at: when listing began.
        owners: by stack.
        gone_stacks: stacks of deployments that are gone.
        busy_stacks: stacks with an open operation, also of deployments that are gone.
        suspects: resource key → when it was first found without an owner.
    """

    listed_at: datetime
    found: Sequence[Found]
    owners: Mapping[str, Owner]
    gone_stacks: frozenset[str]
    busy_stacks: frozenset[str]
    suspects: Mapping[str, datetime]


@dataclass(frozen=True)
class Suspect:
    """Nobody seems to own it; remembered until the grace is over."""

    found: Found
    since: datetime


@dataclass(frozen=True)
class Delete:
    """Nobody has owned it for long enough."""

    found: Found
    why: str


@dataclass(frozen=True)
class Refresh:
    """A machine of this deployment is gone: read the cloud into its stack, then create it again."""

    deployment_id: str
    stack: str
    missing: tuple[str, ...]


SweepAction = Suspect | Delete | Refresh


def decide(snapshot: SweepSnapshot, *, now: datetime, grace: timedelta) -> list[SweepAction]:
    """What one sweep does, resources first."""
    actions: list[SweepAction] = []
    for found in snapshot.found:
        if not (why := _why_unowned(snapshot, found)):
            continue
        since = snapshot.suspects.get(found.key)
        if since is not None and since + grace <= now:
            actions.append(Delete(found, why))
        else:
            actions.append(Suspect(found, since or now))
    return actions + [r for owner in snapshot.owners.values() if (r := _missing(snapshot, owner))]


def _why_unowned(snapshot: SweepSnapshot, found: Found) -> str:
    """Why a resource has no live owner; "" when it has one, or when an operation on its stack is open."""
    if found.owner in snapshot.busy_stacks:
        return ""
    owner = snapshot.owners.get(found.owner)
    if owner is None and found.owner in snapshot.gone_stacks:
        return "its deployment is gone"
    if owner is None:
        if found.kind == VOLUME:
            return ""
        return "its deployment does not exist" if found.is_ours else ""  # else another installation's, same account
    if found.kind != MACHINE or not _is_settled(snapshot, owner) or owner.machines is None:
        return ""
    return "" if found.id in owner.machines else "its deployment's stack does not know it"


def _missing(snapshot: SweepSnapshot, owner: Owner) -> Refresh | None:
    if not _is_settled(snapshot, owner) or owner.machines is None:
        return None
    listed = {f.id for f in snapshot.found if f.kind == MACHINE and f.owner == owner.stack}
    missing = sorted(owner.machines - listed)
    return Refresh(owner.deployment_id, owner.stack, tuple(missing)) if missing else None


def _is_settled(snapshot: SweepSnapshot, owner: Owner) -> bool:
    """Whether the stack has said what exists before the list was made, and nothing is changing it."""
    return (
        not owner.busy
        and not owner.is_leaving
        and owner.settled_since is not None
        and owner.settled_since < snapshot.listed_at
    )
