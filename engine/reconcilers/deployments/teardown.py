"""What to do about a deployment that is being deleted, until the cloud says that nothing of it is left. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from engine.model.deployment import Phase, UpdateKind
from engine.reconcilers.deployments.conditions import changed, destroyed_condition, replicas_leaving, stack_condition
from engine.reconcilers.deployments.money import billed_until
from engine.reconcilers.deployments.operations_due import retry_at
from engine.reconcilers.deployments.snapshot import (
    RESOURCES_PRESENT,
    Action,
    CloseUsage,
    DeleteLeftovers,
    MarkDeleted,
    Policy,
    RecordReplicas,
    SetPhase,
    Snapshot,
    StartUpdate,
    VerifyGone,
    Wait,
)


def tear_down(s: Snapshot, accepted_at: datetime, now: datetime, ids: Iterator[str], policy: Policy) -> list[Action]:
    """Everything to do now. Nothing is drained: a DELETE ends the deployment at once."""
    actions: list[Action] = []
    if s.phase is not Phase.TEARDOWN:
        actions.append(SetPhase(Phase.TEARDOWN, "deletion was requested"))
    if s.replicas:
        actions.append(RecordReplicas(()))
    actions += [CloseUsage(u.replica, billed_until(s, u.replica, accepted_at)) for u in s.open_usage]
    is_destroyed = s.open_update is None and (s.last_update is None or _destroyed(s, accepted_at))
    again_at = retry_at(s, UpdateKind.DESTROY, policy)
    stack = None if is_destroyed else stack_condition(s, UpdateKind.DESTROY, again_at, now, policy)
    actions += changed(s, [stack or destroyed_condition(now), replicas_leaving(now)])
    if s.open_update is not None:
        return actions
    if not is_destroyed:
        if again_at <= now:
            return [*actions, StartUpdate(f"upd_{next(ids)}", UpdateKind.DESTROY, s.generation)]
        return [*actions, Wait(again_at, "backing off after failures")]
    return actions + _settle_with_cloud(s, accepted_at, now, policy)


def _destroyed(s: Snapshot, accepted_at: datetime) -> bool:
    return s.last_destroy is not None and s.last_destroy.requested_at >= accepted_at


def _settle_with_cloud(s: Snapshot, accepted_at: datetime, now: datetime, policy: Policy) -> list[Action]:
    """The stack is destroyed; it is over when the cloud says so too."""
    destroyed_at = (s.last_destroy.finished_at if s.last_destroy else None) or accepted_at
    seen = s.condition(RESOURCES_PRESENT)
    if seen is None or seen.changed_at < destroyed_at:
        return [VerifyGone()]
    if not seen.status:
        return [MarkDeleted()]
    again_at = seen.changed_at + policy.verify_pause(seen.changed_at - destroyed_at)
    if now < again_at:
        return [Wait(again_at, "the cloud still lists resources, or did not say")]
    if seen.reason == "Listed" and destroyed_at + policy.leftovers_after <= now:
        return [DeleteLeftovers(), VerifyGone()]
    return [VerifyGone()]
