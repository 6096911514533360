"""What to do about one deployment, given what is known of it. Pure: performs nothing, reads no clock."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from engine.model.deployment import Condition, Phase, Replica, ReplicaPhase, UpdateKind, UpdateState
from engine.model.failure_words import for_tenant
from engine.reconcilers.deployments.health import next_check
from engine.reconcilers.deployments.snapshot import (
    CAPACITY_AVAILABLE,
    REPLICAS_READY,
    RESOURCES_PRESENT,
    STACK_UPDATED,
    Action,
    CloseUsage,
    DeleteLeftovers,
    MarkDeleted,
    Observed,
    OpenUsage,
    Policy,
    ProbeReplicas,
    RecordReplicas,
    SetConditions,
    SetPhase,
    Snapshot,
    StartUpdate,
    VerifyGone,
    Wait,
)

_CAPACITY_WORDS = ("capacity", "not available in", "unavailable in", "out of stock", "sold out", "droplet limit")


def decide(snapshot: Snapshot, *, now: datetime, new_ids: Sequence[str], policy: Policy | None = None) -> list[Action]:
    """Everything to do now, in order, and until when to wait for more.

    Args:
        new_ids: random texts for what is created, [n], n ≥ 1 + the number of desired replicas.
    """
    policy = policy or Policy()
    if snapshot.phase is Phase.INACTIVE:
        return []
    ids = iter(new_ids)
    if snapshot.delete_requested_at is not None:
        return _tear_down(snapshot, snapshot.delete_requested_at, now, ids, policy)
    return _realise(snapshot, now, ids, policy)


# Towards the spec


def _realise(s: Snapshot, now: datetime, ids: Iterator[str], policy: Policy) -> list[Action]:
    wanted = wanted_update(s, policy)
    replicas = existing_replicas(s)
    actions: list[Action] = []
    if replicas != s.replicas:
        actions.append(RecordReplicas(replicas))
    if s.observed_generation < realised_generation(s):
        actions.append(Observed(realised_generation(s)))
    actions += _bill(s, now, ids)
    phase, reason = _next_phase(s, replicas, wanted, now, policy)
    if (phase, reason) != (s.phase, s.phase_reason):
        actions.append(SetPhase(phase, reason))
    if conditions := _conditions(s, replicas, wanted, now, policy):
        actions.append(SetConditions(conditions))
    if due := _due_for_check(s, replicas, now, policy):
        actions.append(ProbeReplicas(due))
    retry_at = _retry_at(s, wanted, policy)
    if wanted is not None and s.open_update is None and retry_at <= now:
        actions.append(StartUpdate(f"upd_{next(ids)}", wanted, s.generation))
    if wait := _next_look(s, replicas, wanted, retry_at, now, policy):
        actions.append(wait)
    return actions


def wanted_update(s: Snapshot, policy: Policy) -> UpdateKind | None:
    """The operation that would bring the stack to the spec, or the stack's state to the truth; None: both agree.

    Or it was given up: then what the attempts made is destroyed, and after that nothing is wanted.
    """
    if has_given_up(s, policy):
        return None if _is_cleared(s) else UpdateKind.DESTROY
    if s.last_up is None or realised_generation(s) < s.generation:
        return UpdateKind.UP
    if s.last_refresh and s.last_refresh.finished_at and s.last_refresh.finished_at > s.last_up.requested_at:
        return UpdateKind.UP  # what the refresh found missing is created again
    looked_at = max(u.requested_at for u in (s.last_up, s.last_refresh) if u is not None)
    for replica in s.replicas:
        silent_since = replica.unhealthy_since
        if replica.phase is ReplicaPhase.UNHEALTHY and silent_since is not None and looked_at < silent_since:
            return UpdateKind.REFRESH  # its machine may have vanished: look once per outage
    return None


def has_given_up(s: Snapshot, policy: Policy) -> bool:
    """Whether nothing ever came to be and this generation's attempts are used up; an edit begins anew."""
    if s.last_up is not None or s.last_update is None or s.last_update.generation != s.generation:
        return False
    if _is_cleared(s) or s.last_update.kind is UpdateKind.DESTROY:  # nobody asked for it: it is being given up
        return True
    return s.last_update.state is UpdateState.FAILED and s.failures >= policy.give_up_after


def _is_cleared(s: Snapshot) -> bool:
    """Whether what this generation's attempts made is destroyed."""
    return s.last_up is None and s.last_destroy is not None and s.last_destroy.generation == s.generation


def realised_generation(s: Snapshot) -> int:
    """The generation of the spec that the stack was last brought to; an operation uses the newest one it finds."""
    if s.last_up is None:
        return 0
    return min(s.generation, max(s.last_up.generation, s.last_up.outputs.generation))


def existing_replicas(s: Snapshot) -> tuple[Replica, ...]:
    """What the stack's outputs say exists, with what was measured of it; [n].

    Replicas that a new spec does not want are left out before they are destroyed, so that nobody is sent there; unless
    none of the wanted ones exists yet: then the old ones serve until they are replaced.
    """
    if s.last_up is None:
        return s.replicas
    known = {r.id: r for r in s.replicas}
    outputs = s.last_up.outputs
    replicas = []
    for output, endpoint in zip(outputs.replicas, outputs.endpoints, strict=True):
        facts = {"id": output["id"], "name": output["name"], "address": output.get("address", ""), "endpoint": endpoint}
        before = known.get(output["id"])
        replicas.append(before.model_copy(update=facts) if before else Replica.model_validate(facts))
    wanted = [r for r in replicas if r.name in s.desired_names]
    return tuple(wanted if wanted or not s.desired_names else replicas)


def _next_phase(
    s: Snapshot, replicas: Sequence[Replica], wanted: UpdateKind | None, now: datetime, policy: Policy
) -> tuple[Phase, str]:
    ready = _ready(s, replicas)
    behind = realised_generation(s) < s.generation
    if behind and (why := _blocked(s, policy)):
        return (_step(s.phase, Phase.DEGRADED) if ready else _step(s.phase, Phase.FAILED)), why
    if behind and s.last_up is None:
        return (Phase.PROVISIONING, "") if s.phase is Phase.FAILED else (s.phase, s.phase_reason)
    if behind:
        return _step(s.phase, Phase.SCALING), f"bringing the stack to generation {s.generation}"
    if ready >= s.spec.replicas:
        return (
            (_step(s.phase, Phase.ACTIVE), "")
            if s.spec.replicas
            else (_step(s.phase, Phase.ASLEEP), s.suspended_reason)
        )
    return _phase_while_not_ready(s, replicas, ready, now, policy)


def _phase_while_not_ready(
    s: Snapshot, replicas: Sequence[Replica], ready: int, now: datetime, policy: Policy
) -> tuple[Phase, str]:
    """The stack is as the spec wants it, but not all replicas serve."""
    starting = s.phase in (Phase.PROVISIONING, Phase.SCALING, Phase.FAILED)
    why = f"{ready} of {s.spec.replicas} replicas are ready{_complaints(replicas)}"
    if starting and _booting_since(s) + policy.boot_timeout <= now:
        minutes = policy.boot_timeout.total_seconds() / 60
        reason = f"boot timeout: not ready {minutes:g} minutes after its machines were created; {why}"
        return (_step(s.phase, Phase.DEGRADED) if ready else _step(s.phase, Phase.FAILED)), reason
    lost = [r for r in replicas if r.phase is ReplicaPhase.UNHEALTHY]
    if starting and not lost:
        return (Phase.PROVISIONING, "") if s.phase is Phase.FAILED else (s.phase, s.phase_reason)
    return _step(s.phase, Phase.DEGRADED), why


_VIA: dict[tuple[Phase, Phase], Phase] = {
    (Phase.PROVISIONING, Phase.ASLEEP): Phase.ACTIVE,
    (Phase.PROVISIONING, Phase.SCALING): Phase.PROVISIONING,
    (Phase.DEGRADED, Phase.ASLEEP): Phase.ACTIVE,
    (Phase.FAILED, Phase.ASLEEP): Phase.ACTIVE,
    (Phase.ASLEEP, Phase.ACTIVE): Phase.SCALING,
    (Phase.ASLEEP, Phase.DEGRADED): Phase.SCALING,
    (Phase.ASLEEP, Phase.FAILED): Phase.SCALING,
}
"""Where the life cycle has no direct way: the phase in between, from which the next look goes on."""


def _step(current: Phase, goal: Phase) -> Phase:
    return _VIA.get((current, goal), goal)


def _blocked(s: Snapshot, policy: Policy) -> str:
    """Why operations do not get on; "" while they may still."""
    last = s.last_update
    if last is None or last.generation != s.generation:
        return ""
    if _is_cleared(s) or last.kind is UpdateKind.DESTROY:
        return s.phase_reason or "gave up"
    if last.state is not UpdateState.FAILED:
        return ""
    if s.failures >= policy.failed_after:
        return for_tenant(last.message) or last.error_code
    return ""


def _retry_at(s: Snapshot, wanted: UpdateKind | None, policy: Policy) -> datetime:
    """When the wanted operation may start; in the past when it never failed."""
    last = s.last_update
    if last is None or last.finished_at is None or last.state is not UpdateState.FAILED:
        return s.created_at
    if last.kind is not wanted or (wanted is UpdateKind.UP and last.generation != s.generation):
        return s.created_at
    return last.finished_at + policy.backoff(max(1, s.failures))


def _due_for_check(s: Snapshot, replicas: Sequence[Replica], now: datetime, policy: Policy) -> tuple[str, ...]:
    return tuple(r.name for r in replicas if _next_check(s, r, policy) <= now)


def _next_check(s: Snapshot, replica: Replica, policy: Policy) -> datetime:
    return next_check(replica, exists_since=_booting_since(s), health_period=policy.health_period)


def _check_after(s: Snapshot, replica: Replica, now: datetime, policy: Policy) -> datetime:
    """When a replica is asked next, given that one which is due is asked now and says nothing new."""
    due = _next_check(s, replica, policy)
    return due if due > now else _next_check(s, replica.model_copy(update={"checked_at": now}), policy)


def _next_look(
    s: Snapshot,
    replicas: Sequence[Replica],
    wanted: UpdateKind | None,
    retry_at: datetime,
    now: datetime,
    policy: Policy,
) -> Wait | None:
    """The earliest moment at which something can be due that no hint announces."""
    waits = [Wait(_check_after(s, r, now, policy), "the next health check") for r in replicas]
    if wanted is not None and s.open_update is None and retry_at > now:
        waits.append(Wait(retry_at, "backing off after failures"))
    deadline = _booting_since(s) + policy.boot_timeout
    if wanted is None and _ready(s, replicas) < s.spec.replicas and deadline > now:
        waits.append(Wait(deadline, "the boot timeout"))
    return min(waits, key=lambda w: w.until, default=None)


def _booting_since(s: Snapshot) -> datetime:
    return (s.last_up.finished_at if s.last_up else None) or s.created_at


def _ready(s: Snapshot, replicas: Sequence[Replica]) -> int:
    return sum(r.phase is ReplicaPhase.READY and r.name in s.desired_names for r in replicas)


def _complaints(replicas: Sequence[Replica]) -> str:
    found = [f"{r.name}: {r.reason}" for r in replicas if r.phase is not ReplicaPhase.READY and r.reason]
    return f" ({'; '.join(found)})" if found else ""


# Money


def _bill(s: Snapshot, now: datetime, ids: Iterator[str]) -> list[Action]:
    """Open an interval for each wanted replica that came to exist, close those of replicas nobody wants any more.

    Both are dated, not "now": from the start of the operation that created it to the acceptance of the edit that
    removes it, however late this runs.
    """
    running = {u.replica for u in s.open_usage}
    actions: list[Action] = []
    for name in sorted(running - set(s.desired_names)):
        actions.append(CloseUsage(name, _billed_until(s, name, s.spec_changed_at or now)))
    if s.last_up is None:
        return actions
    began = s.last_up.started_at or s.last_up.requested_at
    before = {r.name: r for r in s.replicas}
    for output in s.last_up.outputs.replicas:
        name = output["name"]
        if name not in s.desired_names:
            continue
        predecessor = before.get(name)
        if name in running and predecessor is not None and predecessor.id != output["id"]:
            actions.append(CloseUsage(name, min(predecessor.unhealthy_since or began, began)))
            actions.append(OpenUsage(f"use_{next(ids)}", name, began))
        elif name not in running:
            actions.append(OpenUsage(f"use_{next(ids)}", name, max(began, s.spec_changed_at or began)))
    return actions


def _billed_until(s: Snapshot, name: str, accepted_at: datetime) -> datetime:
    """When billing of a replica nobody wants any more ends: with the request, or with the outage it did not survive.

    A silent machine still exists and costs; one that a refresh looked for and no `up` has found or made since is gone.
    """
    replica = next((r for r in s.replicas if r.name == name), None)
    silent_since = replica.unhealthy_since if replica and replica.phase is ReplicaPhase.UNHEALTHY else None
    looked = s.last_refresh
    if silent_since is None or looked is None or looked.requested_at < silent_since:
        return accepted_at
    if s.last_up is not None and looked.finished_at is not None and looked.finished_at <= s.last_up.requested_at:
        return accepted_at
    return min(accepted_at, silent_since)


# Towards nothing


def _tear_down(s: Snapshot, accepted_at: datetime, now: datetime, ids: Iterator[str], policy: Policy) -> list[Action]:
    actions: list[Action] = []
    if s.phase is not Phase.TEARDOWN:
        actions.append(SetPhase(Phase.TEARDOWN, "deletion was requested"))
    if s.replicas:
        actions.append(RecordReplicas(()))
    actions += [CloseUsage(u.replica, _billed_until(s, u.replica, accepted_at)) for u in s.open_usage]
    is_destroyed = s.open_update is None and (s.last_update is None or _destroyed(s, accepted_at))
    stack = None if is_destroyed else _stack_condition(s, UpdateKind.DESTROY, now, policy)
    actions += _changed(s, [stack or _destroyed_condition(now), _replicas_leaving(now)])
    if s.open_update is not None:
        return actions
    if not is_destroyed:
        retry_at = _retry_at(s, UpdateKind.DESTROY, policy)
        if retry_at <= now:
            return [*actions, StartUpdate(f"upd_{next(ids)}", UpdateKind.DESTROY, s.generation)]
        return [*actions, Wait(retry_at, "backing off after failures")]
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


# Conditions


def _destroyed_condition(now: datetime) -> Condition:
    return Condition(
        type=STACK_UPDATED, status=True, reason="Destroyed", message="the stack is destroyed", changed_at=now
    )


def _replicas_leaving(now: datetime) -> Condition:
    message = "the deployment is being deleted"
    return Condition(type=REPLICAS_READY, status=False, reason="Deleted", message=message, changed_at=now)


def _conditions(
    s: Snapshot, replicas: Sequence[Replica], wanted: UpdateKind | None, now: datetime, policy: Policy
) -> tuple[Condition, ...]:
    ready = _ready(s, replicas)
    all_ready = ready >= s.spec.replicas
    lost = any(r.phase is ReplicaPhase.UNHEALTHY for r in replicas)
    readiness = Condition(
        type=REPLICAS_READY,
        status=all_ready,
        reason="Ready" if all_ready else "Unhealthy" if lost else "Booting" if replicas else "NotCreated",
        message=f"{ready} of {s.spec.replicas} replicas are ready{'' if all_ready else _complaints(replicas)}",
        changed_at=now,
    )
    conditions = [_stack_condition(s, wanted, now, policy), readiness]
    if capacity := _capacity_condition(s, now):
        conditions.append(capacity)
    changed = _changed(s, conditions)
    return changed[0].conditions if changed else ()


def _stack_condition(s: Snapshot, wanted: UpdateKind | None, now: datetime, policy: Policy) -> Condition:
    def condition(status: bool, reason: str, message: str, until: datetime | None = None) -> Condition:
        return Condition(type=STACK_UPDATED, status=status, reason=reason, message=message, until=until, changed_at=now)

    if s.open_update is not None:
        verb = "is running" if s.open_update.state is UpdateState.RUNNING else "waits for its turn"
        return condition(False, s.open_update.state.value.capitalize(), f"{s.open_update.kind} {verb}")
    if wanted is None and has_given_up(s, policy):
        attempts = f"gave up after {policy.give_up_after} attempts"
        return condition(False, "GaveUp", f"{attempts}; what was made is removed; change the deployment or delete it")
    if wanted is None:
        return condition(True, "UpToDate", f"the stack is at generation {realised_generation(s)}")
    retry_at = _retry_at(s, wanted, policy)
    last = s.last_update
    if last is not None and last.state is UpdateState.FAILED and retry_at != s.created_at:
        return condition(False, "Failed", for_tenant(last.message), until=retry_at)
    return condition(False, "Pending", f"{wanted} is due")


def _capacity_condition(s: Snapshot, now: datetime) -> Condition | None:
    last = s.last_update
    if last is not None and last.state is UpdateState.FAILED:
        text = last.message.lower()
        if any(word in text for word in _CAPACITY_WORDS):
            return Condition(
                type=CAPACITY_AVAILABLE,
                status=False,
                reason="NoCapacity",
                message=for_tenant(last.message),
                changed_at=now,
            )
        return None
    if last is not None and last.kind is not UpdateKind.DESTROY and s.condition(CAPACITY_AVAILABLE) is not None:
        return Condition(type=CAPACITY_AVAILABLE, status=True, reason="Placed", changed_at=now)
    return None


def _changed(s: Snapshot, conditions: Sequence[Condition]) -> list[SetConditions]:
    """The conditions that say something new; an unchanged one keeps the time of its last change."""
    new = tuple(
        c
        for c in conditions
        if (old := s.condition(c.type)) is None or old.model_copy(update={"changed_at": c.changed_at}) != c
    )
    return [SetConditions(new)] if new else []
