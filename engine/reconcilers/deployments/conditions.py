"""What a deployment's conditions say: why it is as it is, and until when. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from engine.model.deployment import Condition, MachineFailure, ReplicaPhase, UpdateKind, UpdateState
from engine.model.failure_words import for_tenant
from engine.reconcilers.deployments.machines import says_no_capacity
from engine.reconcilers.deployments.phases import is_late
from engine.reconcilers.deployments.snapshot import (
    CAPACITY_AVAILABLE,
    REPLACED,
    REPLICAS_READY,
    STACK_UPDATED,
    Policy,
    SetConditions,
    Snapshot,
)
from engine.reconcilers.deployments.view import View


def conditions(view: View, *, gave_up: bool) -> list[SetConditions]:
    """All that say something new."""
    found = [stack_condition(view.s, view.wanted, view.retry_at, view.now, view.policy, gave_up=gave_up)]
    found.append(_readiness(view))
    found += [c for c in (_capacity(view), _replacement(view)) if c is not None]
    return changed(view.s, found)


def changed(s: Snapshot, found: Sequence[Condition]) -> list[SetConditions]:
    """The conditions that say something new; an unchanged one keeps the time of its last change."""
    new = tuple(
        c
        for c in found
        if (old := s.condition(c.type)) is None or old.model_copy(update={"changed_at": c.changed_at}) != c
    )
    return [SetConditions(new)] if new else []


def stack_condition(
    s: Snapshot, wanted: UpdateKind | None, retry_at: datetime, now: datetime, policy: Policy, *, gave_up: bool = False
) -> Condition:
    """Whether the stack is as it is to be."""

    def condition(status: bool, reason: str, message: str, until: datetime | None = None) -> Condition:
        return Condition(type=STACK_UPDATED, status=status, reason=reason, message=message, until=until, changed_at=now)

    if s.open_update is not None:
        verb = "is running" if s.open_update.state is UpdateState.RUNNING else "waits for its turn"
        return condition(False, s.open_update.state.value.capitalize(), f"{s.open_update.kind} {verb}")
    if wanted is None and gave_up:
        attempts = f"gave up after {policy.give_up_after} attempts"
        return condition(False, "GaveUp", f"{attempts}; what was made is removed; change the deployment or delete it")
    if wanted is None:
        return condition(True, "UpToDate", f"the stack is at generation {s.realised_generation}")
    last = s.last_update
    if last is not None and last.state is UpdateState.FAILED and retry_at != s.created_at:
        return condition(False, "Failed", for_tenant(last.message), until=retry_at)
    return condition(False, "Pending", f"{wanted} is due")


def destroyed_condition(now: datetime) -> Condition:
    """The stack of a deployment that is being deleted is gone."""
    return Condition(
        type=STACK_UPDATED, status=True, reason="Destroyed", message="the stack is destroyed", changed_at=now
    )


def replicas_leaving(now: datetime) -> Condition:
    """Nobody is served while a deployment is being deleted."""
    message = "the deployment is being deleted"
    return Condition(type=REPLICAS_READY, status=False, reason="Deleted", message=message, changed_at=now)


def _readiness(view: View) -> Condition:
    all_ready = view.serving >= view.goal
    reason = "Ready" if all_ready else "Unhealthy" if view.lost else "Booting" if view.replicas else "NotCreated"
    return Condition(
        type=REPLICAS_READY,
        status=all_ready,
        reason=reason,
        message=f"{view.count()}{'' if all_ready else view.complaints()}",
        changed_at=view.now,
    )


def _capacity(view: View) -> Condition | None:
    failures, last = view.plan.failures, view.s.last_update
    if failures is not None and failures.cause is MachineFailure.NO_CAPACITY:
        return Condition(
            type=CAPACITY_AVAILABLE, status=False, reason="NoCapacity", message=failures.reason,
            until=failures.until, changed_at=view.now,
        )  # fmt: skip
    if last is not None and last.state is UpdateState.FAILED:
        if view.s.last_up is not None or not says_no_capacity(last.message):
            return None
        return Condition(
            type=CAPACITY_AVAILABLE, status=False, reason="NoCapacity", message=for_tenant(last.message),
            changed_at=view.now,
        )  # fmt: skip
    if last is not None and last.kind is not UpdateKind.DESTROY and view.s.condition(CAPACITY_AVAILABLE) is not None:
        return Condition(type=CAPACITY_AVAILABLE, status=True, reason="Placed", changed_at=view.now)
    return None


def _replacement(view: View) -> Condition | None:
    """Whether other machines take the place of some: because the spec needs others, or because some died."""

    def condition(reason: str, message: str, until: datetime | None = None) -> Condition:
        return Condition(type=REPLACED, status=False, reason=reason, message=message, until=until, changed_at=view.now)

    old = [m.name for m in view.plan.machines if not m.suits(view.s.spec)]
    dead = [f"{name}: {why}" for name, why in view.plan.dead.items()]
    failures = view.plan.failures
    late = view.boot_timeout
    if not view.goal or not (old or dead or late):
        if view.s.condition(REPLACED) is None:
            return None
        return Condition(type=REPLACED, status=True, reason="Replaced", changed_at=view.now)
    if failures is not None and failures.cause in (MachineFailure.NO_CAPACITY, MachineFailure.REFUSED):
        reason = "NoCapacity" if failures.cause is MachineFailure.NO_CAPACITY else "Failed"
        return condition(reason, failures.reason, failures.until)
    if view.blocked:
        return condition("Failed", view.blocked, view.retry_at)
    if late is not None and late.until > view.now:
        return condition("BootTimeout", late.reason, late.until)
    if late is not None:
        return condition("BootTimeout", f"{late.reason}; the next attempt is being made")
    if any(is_late(view, r) and r.phase is ReplicaPhase.BOOTING for r in view.replicas):
        return condition("BootTimeout", f"the new replicas do not get ready{view.complaints()}")
    if dead:
        return condition("Unhealthy", f"a successor is made for {'; '.join(dead)}")
    return condition("Replacing", f"{', '.join(old)} serve until as many new replicas are ready")
