"""Performs what was decided about one pod and records it once. Chooses nothing: `decide` did."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol, assert_never

from sqlmodel import Session

from engine.billing import meter
from engine.model.clock import Clock
from engine.model.deployment import Condition, UpdateKind
from engine.model.errors import CloudError, StaleLease
from engine.model.pod import ContainerState, FindRoom, Offer, Place, PodMachine, PodPhase, advance
from engine.model.stack import stack_name
from engine.reconcilers.deployments.apply import LeaderFence, Outcome
from engine.reconcilers.inventory import Resource
from engine.reconcilers.pods.decide import container_answer, ssh_answer
from engine.reconcilers.pods.observe import PodObservation, taken
from engine.reconcilers.pods.snapshot import (
    CONTAINER_UP,
    GPU,
    RESOURCES_PRESENT,
    SSH_REACHABLE,
    Action,
    AskSsh,
    CloseUsage,
    DeleteLeftovers,
    GiveUp,
    Hold,
    LookAtContainer,
    MarkDeleted,
    Observed,
    OpenUsage,
    PodPolicy,
    RecordMachine,
    Release,
    ReleasePrecharge,
    SetConditions,
    SetPhase,
    StartUpdate,
    UsePorts,
    VerifyGone,
    Wait,
)
from engine.store import leases, ledger, placements, pods, updates, usage
from engine.store.database import Database
from engine.store.pod_tables import PodRow
from engine.store.tables import UpdateRow, UsageIntervalRow


class Targets(Protocol):
    """What is left of a pod where it ran."""

    async def owned(self, stack: str, place: Place | None) -> Sequence[Resource]:
        """Everything that carries the stack's name at its place.

        Raises:
            CloudError: nobody answered; nothing is known then, least of all that things are gone.
        """
        ...

    async def delete(self, resource: Resource, place: Place | None) -> None:
        """Delete one; no error when it is gone already."""
        ...

    async def container(self, place: Place, id: str) -> ContainerState:
        """What the Docker host of a place says of a container.

        Raises:
            CloudError: it did not answer.
        """
        ...


class Greeter(Protocol):
    """Asks a machine's SSH server for its greeting."""

    async def greeting(self, address: str, port: int) -> tuple[str, str]:
        """The first line it says, and "" or, when it says nothing, "" and why."""
        ...


@dataclass
class _Record:
    """What one round writes, collected while its effects are performed."""

    phase: PodPhase
    conditions: dict[str, Condition]
    values: dict[str, Any] = field(default_factory=dict)
    opened: list[OpenUsage] = field(default_factory=list)
    closed: list[CloseUsage] = field(default_factory=list)
    released: str = ""
    hold: Offer | None = None
    update: StartUpdate | None = None
    wait_until: datetime | None = None

    def wait(self, until: datetime | None) -> None:
        """Look again then, or earlier."""
        moments = [moment for moment in (self.wait_until, until) if moment is not None]
        self.wait_until = min(moments, default=None)


@dataclass(frozen=True)
class PodApplier:
    """Performs actions with this process's connections.

    Attributes:
        submit: hands an update id and its stack to the controller.
        find_room: as `observe` uses it; asked again when a place is recorded.
        fence: of the reconcilers' lease: a process that lost it writes nothing.
    """

    database: Database
    clock: Clock
    greeter: Greeter
    targets: Targets
    find_room: FindRoom
    submit: Callable[[str, str], None]
    fence: LeaderFence
    policy: PodPolicy

    async def apply(self, observation: PodObservation, actions: Sequence[Action]) -> Outcome:
        """Perform and record. Recording nothing (someone edited meanwhile) is fine: the next look decides anew."""
        row, snapshot = observation.row, observation.snapshot
        record = _Record(snapshot.phase, {c.type: c for c in snapshot.conditions})
        for action in actions:
            await self._perform(action, row, record)
        recorded = await asyncio.to_thread(self._commit, row, record)
        if recorded is None:
            return Outcome(look_again=True)
        if record.update is not None:
            await asyncio.to_thread(self.submit, record.update.update_id, stack_name(row.id))
        acted = bool(record.update or record.opened or record.closed)
        return Outcome(look_again=acted or recorded, wait_until=record.wait_until)

    async def _perform(self, action: Action, row: PodRow, record: _Record) -> None:
        match action:
            case SetPhase(phase, reason):
                record.phase = advance(record.phase, phase)
                record.values |= {"phase": record.phase.value, "phase_reason": reason}
            case Hold(offer, ports):
                record.hold = offer
                record.values |= _held(offer, pods.spec_of(row).gpu_count) | {"ports": _texts(ports)}
            case Release(leave):
                record.values |= {"held_gpus": 0, "devices": []} | (_NOWHERE if leave else {})
            case GiveUp(generation):
                record.values["failed_generation"] = generation
            case Observed(generation):
                record.values["observed_generation"] = generation
            case RecordMachine(machine):
                record.values |= _machine(machine)
            case UsePorts(ports):
                record.values["ports"] = _texts(ports)
            case AskSsh(machine, port, since):
                before = record.conditions.get(SSH_REACHABLE)
                greeting, error = await self.greeter.greeting(machine.address, port)
                answer = ssh_answer(before, greeting, error, since=since, now=self.clock.now(), policy=self.policy)
                record.conditions[SSH_REACHABLE] = answer
                record.wait(answer.until)
            case LookAtContainer(machine, since):
                await self._look_at_container(row, machine, since, record)
            case OpenUsage():
                record.opened.append(action)
            case CloseUsage():
                record.closed.append(action)
            case ReleasePrecharge(interval_id):
                record.released = interval_id
                record.values["precharged"] = ""
            case SetConditions(conditions):
                record.conditions |= {c.type: c for c in conditions}
            case VerifyGone():
                record.conditions[RESOURCES_PRESENT] = await self._verify_gone(row)
            case DeleteLeftovers():
                await self._delete_leftovers(row)
            case MarkDeleted():
                record.phase = advance(record.phase, PodPhase.TERMINATED)
                now = self.clock.now()
                record.values |= {"phase": record.phase.value, "phase_reason": "", "deleted_at": now}
            case StartUpdate():
                record.update = action
            case Wait(until, _reason):
                record.wait(until)
            case _:
                assert_never(action)

    async def _look_at_container(self, row: PodRow, machine: PodMachine, since: datetime, record: _Record) -> None:
        place, before = pods.place_of(row), record.conditions.get(CONTAINER_UP)
        if place is None:
            return
        try:
            seen = await self.targets.container(place, machine.id)
        except CloudError:
            record.wait(self.clock.now() + self.policy.container_period)  # nothing is known: nothing is said
            return
        answer = container_answer(before, seen, since=since, now=self.clock.now(), policy=self.policy)
        record.conditions[CONTAINER_UP] = answer
        record.wait(answer.until)

    def _commit(self, row: PodRow, record: _Record) -> bool | None:
        """One guarded transaction; None, and nothing is written, when the row moved on since it was read."""
        self.fence.check()
        now = self.clock.now()
        values = dict(record.values)
        if any(o.interval_id == row.precharged for o in record.opened):
            values["precharged"] = ""
        values["conditions"] = [c.model_dump(mode="json") for c in record.conditions.values()]
        with self.database.write() as session:
            self._check_lease(session, now)
            if record.hold is not None and not self._still_free(session, row, record.hold):
                return None
            if record.released:
                ledger.lock(session, [row.org_id])  # the API locks it before the pod, too: they must not meet
            recorded = pods.record_status(session, row, values, now)
            if recorded is None:
                return None
            for closing in record.closed:
                usage.close(session, row.id, closing.what, closing.ended_at)
            for opening in record.opened:
                usage.insert(session, _interval(row, opening))
            if record.released:
                meter.release_precharge(session, record.released, now=now)
            if record.update is not None:
                _insert_update(session, row, record.update, now)
        return recorded

    def _check_lease(self, session: Session, now: datetime) -> None:
        """The fence answers from memory; what is written asks the database, in the transaction that writes."""
        lease = self.fence.lease
        if not leases.is_held(session, lease, now):
            raise StaleLease(f"the lease {lease.name} (token {lease.token}) ran out or was taken over")

    def _still_free(self, session: Session, row: PodRow, offer: Offer) -> bool:
        """Looks at pods and handlers run side by side: another of them may have taken the place meanwhile."""
        placements.lock(session)
        room = self.find_room(pods.spec_of(row), pods.place_of(row), taken(session))
        return offer in room.offers

    async def _verify_gone(self, row: PodRow) -> Condition:
        asked_at = self.clock.now()
        try:
            left = await self.targets.owned(stack_name(row.id), pods.place_of(row))
        except CloudError as err:
            return Condition(
                type=RESOURCES_PRESENT, status=True, reason="Unknown", message=err.message, changed_at=asked_at
            )
        names = ", ".join(f"{r.kind} {r.name}" for r in left)
        return Condition(
            type=RESOURCES_PRESENT,
            status=bool(left),
            reason="Listed" if left else "Gone",
            message=f"there still is {names}" if left else "nothing of this pod is listed",
            changed_at=asked_at,
        )

    async def _delete_leftovers(self, row: PodRow) -> None:
        place = pods.place_of(row)
        try:
            for resource in await self.targets.owned(stack_name(row.id), place):
                self.fence.check()
                await self.targets.delete(resource, place)
        except CloudError:
            return  # the verification that follows says what is left


_NOWHERE = {"target": "", "host": "", "pool": "", "region": "", "ports": {}, "address": ""}


def _held(offer: Offer, gpus: int) -> dict[str, Any]:
    place = offer.place
    return {
        "target": place.target.value, "host": place.host, "pool": place.pool, "region": place.region,
        "held_gpus": gpus, "devices": list(offer.devices),
    }  # fmt: skip


def _machine(machine: PodMachine | None) -> dict[str, Any]:
    """The address stays recorded while nothing runs: the next machine gets it again."""
    return {"machine_id": machine.id, "address": machine.address} if machine else {"machine_id": ""}


def _texts(ports: Mapping[int, int]) -> dict[str, int]:
    """Ports as JSON has them."""
    return {str(inside): outside for inside, outside in ports.items()}


def _interval(row: PodRow, opening: OpenUsage) -> UsageIntervalRow:
    spec = pods.spec_of(row)
    is_gpu = opening.what == GPU
    return UsageIntervalRow(
        id=opening.interval_id,
        org_id=row.org_id,
        deployment_id=row.id,
        replica=opening.what,
        gpu_type=f"{spec.gpu_count} × {spec.gpu_type}" if is_gpu else f"volume {spec.volume_gb} GB",
        hourly_rate_usd=row.hourly_rate_usd if is_gpu else row.volume_rate_usd,
        started_at=opening.started_at,
    )


def _insert_update(session: Session, row: PodRow, action: StartUpdate, now: datetime) -> None:
    updates.insert(
        session,
        UpdateRow(
            id=action.update_id,
            deployment_id=row.id,
            stack=stack_name(row.id),
            kind=UpdateKind(action.kind).value,
            generation=action.generation,
            requested_at=now,
        ),
    )
