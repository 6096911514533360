"""Performs what was decided about one deployment and records it once. Chooses nothing: `decide` did."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol, assert_never

from sqlmodel import Session

from engine.model.clock import Clock
from engine.model.deployment import Condition, Phase, Replica, ReplicaPhase, UpdateKind, UpdateState, advance
from engine.model.errors import CloudError, StaleLease
from engine.model.fence import Fence
from engine.model.stack import owner_tag, stack_name
from engine.reconcilers.deployments.health import drained, measured, undrained
from engine.reconcilers.deployments.news import news, told_phase
from engine.reconcilers.deployments.observe import Observation
from engine.reconcilers.deployments.probe import Credentials, HealthProbe
from engine.reconcilers.deployments.snapshot import (
    RESOURCES_PRESENT,
    Action,
    CloseUsage,
    DeleteLeftovers,
    DrainReplicas,
    MarkDeleted,
    Observed,
    OpenUsage,
    Policy,
    ProbeReplicas,
    RecordMachines,
    RecordReplicas,
    SetConditions,
    SetPhase,
    StartUpdate,
    UndrainReplicas,
    VerifyGone,
    Wait,
)
from engine.reconcilers.inventory import Inventory, Resource
from engine.store import deployments, leases, updates, usage
from engine.store.database import Database
from engine.store.deployments import Recorded
from engine.store.leases import Lease
from engine.store.sealing import Sealer
from engine.store.tables import DeploymentRow, UpdateRow, UsageIntervalRow
from engine.webhooks.events import publish


class LeaderFence(Fence, Protocol):
    """The fence of a lease that can also be looked up inside a transaction."""

    @property
    def lease(self) -> Lease: ...


@dataclass(frozen=True)
class Outcome:
    """What applying came to.

    Attributes:
        look_again: something changed, so that deciding anew may find more to do.
        wait_until: nothing to do before then, unless a hint comes.
    """

    look_again: bool
    wait_until: datetime | None = None


_Asking = Callable[[Replica, Credentials], Awaitable[Replica]]


@dataclass
class _Record:
    """What one round writes, collected while its effects are performed."""

    phase: Phase
    replicas: tuple[Replica, ...]
    conditions: dict[str, Condition]
    values: dict[str, Any] = field(default_factory=dict)
    opened: list[OpenUsage] = field(default_factory=list)
    closed: list[CloseUsage] = field(default_factory=list)
    update: StartUpdate | None = None
    wait_until: datetime | None = None


@dataclass(frozen=True)
class Applier:
    """Performs actions with this process's connections.

    Attributes:
        submit: hands an update id and its stack to the controller.
        hourly_usd: price of one replica of a GPU type; frozen into the interval.
        fence: of the reconcilers' lease: a process that lost it writes nothing.
    """

    database: Database
    clock: Clock
    sealer: Sealer
    probe: HealthProbe
    inventory: Inventory
    installation_tag: str
    submit: Callable[[str, str], None]
    hourly_usd: Callable[[str], Decimal]
    fence: LeaderFence
    policy: Policy

    async def apply(self, observation: Observation, actions: Sequence[Action]) -> Outcome:
        """Perform and record. Recording nothing (someone edited meanwhile) is fine: the next look decides anew."""
        row, snapshot = observation.row, observation.snapshot
        record = _Record(snapshot.phase, snapshot.replicas, {c.type: c for c in snapshot.conditions})
        for action in actions:
            await self._perform(action, row, record)
        recorded = await asyncio.to_thread(self._commit, observation, record)
        if recorded is Recorded.STALE:
            return Outcome(look_again=True)
        if record.update is not None:
            await asyncio.to_thread(self.submit, record.update.update_id, stack_name(row.id))
        acted = bool(record.update or record.opened or record.closed)
        return Outcome(look_again=acted or recorded is Recorded.VISIBLY, wait_until=record.wait_until)

    async def _perform(self, action: Action, row: DeploymentRow, record: _Record) -> None:
        match action:
            case SetPhase(phase, reason):
                record.phase = advance(record.phase, phase)
                record.values |= {"phase": record.phase.value, "phase_reason": reason}
            case Observed(generation):
                record.values["observed_generation"] = generation
            case RecordReplicas(replicas):
                record.replicas = replicas
            case RecordMachines():
                record.values |= _machine_columns(action)
            case ProbeReplicas(names):
                record.replicas = await self._ask(row, record.replicas, names, self._measure)
            case DrainReplicas(names):
                record.replicas = await self._ask(row, record.replicas, names, self._drain)
            case UndrainReplicas(names):
                record.replicas = await self._ask(row, record.replicas, names, self._undrain)
            case OpenUsage():
                record.opened.append(action)
            case CloseUsage():
                record.closed.append(action)
            case SetConditions(conditions):
                record.conditions |= {c.type: c for c in conditions}
            case VerifyGone():
                record.conditions[RESOURCES_PRESENT] = await self._verify_gone(row.id)
            case DeleteLeftovers():
                await self._delete_leftovers(row.id)
            case MarkDeleted():
                record.phase = advance(record.phase, Phase.INACTIVE)
                record.values |= {
                    "phase": record.phase.value,
                    "phase_reason": "",
                    "deleted_at": self.clock.now(),
                }
            case StartUpdate():
                record.update = action
            case Wait(until, _reason):
                record.wait_until = until
            case _:
                assert_never(action)

    def _commit(self, observation: Observation, record: _Record) -> Recorded:
        """One guarded transaction; nothing is written when the row moved on since it was read."""
        self.fence.check()
        row, last = observation.row, observation.snapshot.last_update
        now = self.clock.now()
        values = record.values | {
            "replicas": [r.model_dump(mode="json") for r in record.replicas],
            "conditions": [c.model_dump(mode="json") for c in record.conditions.values()],
            "failures": observation.snapshot.failures,
            "last_failure_at": last.finished_at if last and last.state is UpdateState.FAILED else row.last_failure_at,
        }
        if (told := told_phase(row.told_phase, record.phase)) != row.told_phase:
            values["told_phase"] = told
        with self.database.write() as session:
            self._check_lease(session, now)
            recorded = deployments.record_status(session, row, values, now)
            if recorded is Recorded.STALE:
                return recorded
            for closing in record.closed:
                usage.close(session, row.id, closing.replica, closing.ended_at)
            for opening in record.opened:
                usage.insert(session, self._interval(row, opening))
            if record.update is not None:
                _insert_update(session, row, record.update, now)
            self._tell(session, row, record, now)
        return recorded

    def _tell(self, session: Session, row: DeploymentRow, record: _Record, now: datetime) -> None:
        """Publish what became of it, with the change and as its last step: messages keep their order."""
        found = news(row.told_phase, record.phase, reason=record.values.get("phase_reason", row.phase_reason))
        if found is None:
            return
        spec = deployments.running_spec_of(row)
        ready = sum(r.phase is ReplicaPhase.READY for r in record.replicas)
        publish(
            session, self.sealer, org_id=row.org_id, deployment_id=row.id, event=found.event,
            data={**found.data, "replicas": spec.replicas, "ready_replicas": ready},
            key=f"g{row.generation}:{record.phase.value}:{now.isoformat()}", now=now,
        )  # fmt: skip

    def _check_lease(self, session: Session, now: datetime) -> None:
        """The fence answers from memory; what is written asks the database, in the transaction that writes."""
        lease = self.fence.lease
        if not leases.is_held(session, lease, now):
            raise StaleLease(f"the lease {lease.name} (token {lease.token}) ran out or was taken over")

    def _interval(self, row: DeploymentRow, opening: OpenUsage) -> UsageIntervalRow:
        return UsageIntervalRow(
            id=opening.interval_id,
            org_id=row.org_id,
            deployment_id=row.id,
            replica=opening.replica,
            gpu_type=opening.gpu_type,
            hourly_rate_usd=str(self.hourly_usd(opening.gpu_type)),
            started_at=opening.started_at,
        )

    async def _ask(
        self, row: DeploymentRow, replicas: tuple[Replica, ...], names: Sequence[str], ask: _Asking
    ) -> tuple[Replica, ...]:
        credentials = Credentials(row.worker_fingerprint, self.sealer.open(row.worker_token_sealed))

        async def one(replica: Replica) -> Replica:
            return await ask(replica, credentials) if replica.name in names else replica

        return tuple(await asyncio.gather(*(one(r) for r in replicas)))

    async def _measure(self, replica: Replica, credentials: Credentials) -> Replica:
        answer = await self.probe.measure(replica.endpoint, credentials)
        return measured(replica, answer, now=self.clock.now(), unhealthy_after=self.policy.unhealthy_after)

    async def _drain(self, replica: Replica, credentials: Credentials) -> Replica:
        answer = await self.probe.drain(replica.endpoint, credentials, draining=True)
        return drained(replica, answer, now=self.clock.now())

    async def _undrain(self, replica: Replica, credentials: Credentials) -> Replica:
        answer = await self.probe.drain(replica.endpoint, credentials, draining=False)
        return undrained(replica, answer, now=self.clock.now(), unhealthy_after=self.policy.unhealthy_after)

    async def _verify_gone(self, deployment_id: str) -> Condition:
        asked_at = self.clock.now()
        try:
            left = await self._owned(deployment_id)
        except CloudError as err:
            return Condition(
                type=RESOURCES_PRESENT, status=True, reason="Unknown", message=err.message, changed_at=asked_at
            )
        names = ", ".join(f"{r.kind} {r.name}" for r in left)
        return Condition(
            type=RESOURCES_PRESENT,
            status=bool(left),
            reason="Listed" if left else "Gone",
            message=f"the cloud still lists {names}" if left else "the cloud lists nothing of this deployment",
            changed_at=asked_at,
        )

    async def _delete_leftovers(self, deployment_id: str) -> None:
        try:
            for resource in await self._owned(deployment_id):
                self.fence.check()
                await self.inventory.delete(resource)
        except CloudError:
            return  # the verification that follows says what is left

    async def _owned(self, deployment_id: str) -> list[Resource]:
        tag = owner_tag(deployment_id)
        return [r for r in await self.inventory.resources(self.installation_tag) if tag in r.tags]


def _machine_columns(recorded: RecordMachines) -> dict[str, Any]:
    """The row's columns, as JSON has them."""
    failures = recorded.machine_failures
    return {
        "machines": [m.model_dump(mode="json") for m in recorded.machines],
        "machines_made": recorded.machines_made,
        "placement_revision": recorded.placement_revision,
        "machine_failures": failures.model_dump(mode="json") if failures is not None else {},
    }


def _insert_update(session: Session, row: DeploymentRow, action: StartUpdate, now: datetime) -> None:
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
