"""The way of a handler deployment to nothing: its stack is destroyed, and it is over when the targets say so. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from engine.model.deployment import Condition, UpdateKind, UpdateState
from engine.model.handler import HandlerPhase
from engine.reconcilers.deployments.snapshot import (
    RESOURCES_PRESENT,
    STACK_UPDATED,
    DeleteLeftovers,
    MarkDeleted,
    SetConditions,
    VerifyGone,
    Wait,
)
from engine.reconcilers.handlers.conditions import changed
from engine.reconcilers.handlers.snapshot import (
    Action,
    HandlerPolicy,
    RecordWorkers,
    SetPhase,
    Snapshot,
    StartUpdate,
)


def tear_down(
    s: Snapshot, accepted_at: datetime, now: datetime, ids: Sequence[str], policy: HandlerPolicy
) -> list[Action]:
    """Everything to do now. A running operation is waited for: the engine's own state then says what exists."""
    actions: list[Action] = []
    if s.phase is not HandlerPhase.TEARDOWN:
        actions.append(SetPhase(HandlerPhase.TEARDOWN, "deletion was requested"))
    destroyed = s.open_update is None and (s.last_update is None or _is_destroyed(s, accepted_at))
    found = changed(s, [_stack_condition(s, destroyed, now)])
    if found:
        actions.append(SetConditions(found))
    if s.open_update is not None:
        return actions
    if not destroyed:
        retry_at = _retry_at(s, accepted_at, policy)
        if retry_at <= now:
            return [*actions, StartUpdate(f"upd_{ids[0]}", UpdateKind.DESTROY, s.revision)]
        return [*actions, Wait(retry_at, "backing off after failures")]
    if s.workers:  # their places are free from now on; the hosts stay known: they are asked what is left
        actions.append(
            RecordWorkers(
                (), s.workers_made, s.revision, s.prepared_hosts, s.start_failures, (), s.cold_starts,
                forgotten=tuple(w.name for w in s.workers),
            )
        )  # fmt: skip
    return actions + _settle(s, accepted_at, now, policy)


def _is_destroyed(s: Snapshot, accepted_at: datetime) -> bool:
    return s.last_destroy is not None and s.last_destroy.requested_at >= accepted_at


def _retry_at(s: Snapshot, accepted_at: datetime, policy: HandlerPolicy) -> datetime:
    last = s.last_update
    if last is None or last.finished_at is None or last.state is not UpdateState.FAILED:
        return accepted_at
    if last.kind is not UpdateKind.DESTROY:
        return accepted_at
    return last.finished_at + policy.backoff(max(1, s.failures))


def _settle(s: Snapshot, accepted_at: datetime, now: datetime, policy: HandlerPolicy) -> list[Action]:
    """The stack is destroyed; it is over when nothing of it is listed any more."""
    destroyed_at = (s.last_destroy.finished_at if s.last_destroy else None) or accepted_at
    seen = s.condition(RESOURCES_PRESENT)
    if seen is None or seen.changed_at < destroyed_at:
        return [VerifyGone()]
    if not seen.status:
        return [MarkDeleted()] if not s.workers else []
    again_at = seen.changed_at + policy.verify_pause(seen.changed_at - destroyed_at)
    if now < again_at:
        return [Wait(again_at, "there still are resources, or somebody did not say")]
    if seen.reason == "Listed" and destroyed_at + policy.leftovers_after <= now:
        return [DeleteLeftovers(), VerifyGone()]
    return [VerifyGone()]


def _stack_condition(s: Snapshot, destroyed: bool, now: datetime) -> Condition:
    if destroyed:
        reason, message = "Destroyed", "the stack is destroyed"
    elif s.open_update is not None:
        reason, message = s.open_update.state.value.capitalize(), f"{s.open_update.kind} is on its way"
    else:
        reason, message = "Pending", "destroy is due"
    return Condition(type=STACK_UPDATED, status=destroyed, reason=reason, message=message, changed_at=now)
