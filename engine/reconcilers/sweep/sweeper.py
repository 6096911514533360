"""Settles the cloud with our rows on a period: lists by tag, decides, deletes or asks for a refresh."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import assert_never

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlmodel import Session

from engine.model import ids
from engine.model.clock import Clock
from engine.model.deployment import UpdateKind
from engine.model.errors import CloudError, StaleLease
from engine.model.fence import Fence
from engine.model.stack import OWNER_TAG_PREFIX, StackOutputs, deployment_id, stack_name
from engine.reconcilers.inventory import Inventory, Resource
from engine.reconcilers.sweep.decide import Delete, Found, Owner, Refresh, Suspect, SweepSnapshot, decide
from engine.store import owners, updates
from engine.store.database import Database
from engine.store.tables import UpdateRow

_OWNER_TAG = f"{OWNER_TAG_PREFIX}:"
_log = structlog.get_logger(__name__)


@dataclass
class Sweeper:
    """One cloud's sweeper.

    Attributes:
        submit: hands an update id and its stack to the controller.
        fence: of the reconcilers' lease: a process that lost it deletes nothing.
        grace: how long a resource has to be without an owner before it is deleted.
    """

    database: Database
    clock: Clock
    inventory: Inventory
    installation_tag: str
    submit: Callable[[str, str], None]
    fence: Fence
    period_seconds: float
    grace: timedelta
    _suspects: dict[str, datetime] = field(default_factory=dict)

    async def run(self) -> None:
        """Sweep until cancelled; soon again when something was found, so that one period settles it."""
        while True:
            found_something = False
            try:
                found_something = await self.sweep()
            except (CloudError, SQLAlchemyError) as err:
                _log.warning("the sweep could not be made", error=str(err))
            except StaleLease:
                raise
            except Exception:  # noqa: BLE001  the loop's edge: a sweep that cannot be made must not stop the reconciling
                _log.exception("the sweep crashed")
            seconds = min(self.period_seconds, self.grace.total_seconds()) if found_something else self.period_seconds
            await self.clock.sleep(seconds)

    async def sweep(self) -> bool:
        """One round. Returns whether anything was left to settle."""
        listed_at = self.clock.now()
        listed = [(r, owner) for r in await self.inventory.resources(self.installation_tag) if (owner := owner_of(r))]
        found = {
            f"{r.kind}/{r.id}": (r, Found(r.kind, r.id, r.name, owner, self.installation_tag in r.tags))
            for r, owner in listed
        }
        snapshot = await asyncio.to_thread(self._snapshot, listed_at, [f for _, f in found.values()])
        actions = decide(snapshot, now=self.clock.now(), grace=self.grace)
        self._suspects = {}
        for action in actions:
            match action:
                case Suspect(suspect, since):
                    self._suspects[suspect.key] = since
                case Delete(orphan, why):
                    await self._delete(found[orphan.key][0], why)
                case Refresh():
                    await asyncio.to_thread(self._refresh, action)
                case _:
                    assert_never(action)
        return bool(actions)

    async def _delete(self, resource: Resource, why: str) -> None:
        self.fence.check()
        log = _log.bind(kind=resource.kind, id=resource.id, name=resource.name)
        log.warning("deleting a resource without owner", why=why)
        try:
            await self.inventory.delete(resource)
        except CloudError as err:
            log.warning("a resource without owner could not be deleted", error=err.message)

    def _refresh(self, action: Refresh) -> None:
        self.fence.check()
        now = self.clock.now()
        with self.database.write() as session:
            row = owners.get(session, action.deployment_id)
            if row is None or row.delete_requested_at is not None:
                return
            update = UpdateRow(
                id=ids.new_id("upd"),
                deployment_id=row.id,
                stack=action.stack,
                kind=UpdateKind.REFRESH.value,
                generation=row.generation,
                requested_at=now,
            )
            if not updates.insert(session, update):
                return
            update_id = update.id
        _log.warning("machines are gone, refreshing", deployment=action.deployment_id, missing=action.missing)
        self.submit(update_id, action.stack)

    def _snapshot(self, listed_at: datetime, found: Sequence[Found]) -> SweepSnapshot:
        with self.database.read() as session:
            busy = frozenset(row.stack for row in updates.all_open(session))
            living = [_owner(session, row, busy) for row in owners.all_living(session)]
            named = [deployment_id(f.owner) for f in found]
            gone = frozenset(stack_name(i) for i in owners.gone_among(session, named))
        return SweepSnapshot(
            listed_at=listed_at,
            found=found,
            owners={owner.stack: owner for owner in living},
            gone_stacks=gone,
            busy_stacks=busy,
            suspects=dict(self._suspects),
        )


def owner_of(resource: Resource) -> str | None:
    """The stack a resource's owner tag names; None when it has none: then it is not the sweeper's business."""
    owners = [tag.removeprefix(_OWNER_TAG) for tag in resource.tags if tag.startswith(_OWNER_TAG)]
    return owners[0] if len(owners) == 1 else None


def _owner(session: Session, row: owners.Owner, busy: frozenset[str]) -> Owner:
    stack = stack_name(row.id)
    last_up = updates.last_succeeded(session, row.id, [UpdateKind.UP])
    # A refresh changes nothing in the cloud: one that failed must not keep the next sweep from asking again.
    last_change = updates.last_finished(session, row.id, [UpdateKind.UP, UpdateKind.DESTROY])
    machines = None
    if last_up is not None:
        made = StackOutputs.from_outputs(last_up.outputs).replicas
        machines = frozenset(r["id"] for r in made if _is_droplet(r["id"]))
    is_true = last_up is not None and last_change is not None and last_change.id == last_up.id
    return Owner(
        deployment_id=row.id,
        stack=stack,
        machines=machines,
        settled_since=last_up.finished_at if last_up is not None and is_true else None,
        busy=stack in busy,
        is_leaving=row.delete_requested_at is not None,
    )


def _is_droplet(id: str) -> bool:
    """Handlers and pods also run as containers of Docker hosts, which have ids of 64 hexadecimal digits."""
    return id.isdecimal() and len(id) < 20
