"""What to do about one deployment, given what is known of it. Pure: performs nothing, reads no clock.

Which machines it is to have is `machines.py`, operations `operations_due.py`, phases `phases.py`, conditions
`conditions.py`, billing `money.py`, the end `teardown.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

from engine.model.deployment import Phase, Replica, ReplicaPhase
from engine.reconcilers.deployments.conditions import conditions
from engine.reconcilers.deployments.draining import as_planned, next_word
from engine.reconcilers.deployments.health import next_check
from engine.reconcilers.deployments.machines import Plan, plan_machines
from engine.reconcilers.deployments.money import bill
from engine.reconcilers.deployments.operations_due import has_given_up, retry_at, wanted_update, why_blocked
from engine.reconcilers.deployments.phases import next_phase
from engine.reconcilers.deployments.snapshot import (
    Action,
    DrainReplicas,
    Observed,
    Policy,
    ProbeReplicas,
    RecordMachines,
    RecordReplicas,
    SetPhase,
    Snapshot,
    StartUpdate,
    UndrainReplicas,
    Wait,
)
from engine.reconcilers.deployments.teardown import tear_down
from engine.reconcilers.deployments.view import View


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
        return tear_down(snapshot, snapshot.delete_requested_at, now, ids, policy)
    return _realise(look(snapshot, now, policy), ids)


def look(s: Snapshot, now: datetime, policy: Policy) -> View:
    """Work out which machines are to be, and what follows for the replicas and the stack."""
    existing = existing_replicas(s)
    if has_given_up(s, policy):
        plan = Plan(list(s.machines), s.machines_made, s.machine_failures, s.placement_revision)
    else:
        plan = plan_machines(s, existing, now, policy)
    replicas = as_planned(existing, s.machines, plan.machines)
    wanted = wanted_update(s, plan, policy)
    blocked = why_blocked(s, policy) if wanted is not None or has_given_up(s, policy) else ""
    return View(s, plan, replicas, wanted, retry_at(s, wanted, policy, plan), blocked, now, policy)


def existing_replicas(s: Snapshot) -> tuple[Replica, ...]:
    """What the stack's outputs say exists, with what was measured of it, and what the cloud says of it; [n]."""
    if s.last_up is None:
        return s.replicas
    known = {r.id: r for r in s.replicas}
    outputs = s.last_up.outputs
    replicas = []
    for output, endpoint in zip(outputs.replicas, outputs.endpoints, strict=True):
        facts = {"id": output["id"], "name": output["name"], "address": output.get("address", ""), "endpoint": endpoint}
        before = known.get(output["id"])
        replica = before.model_copy(update=facts) if before else Replica.model_validate(facts)
        replicas.append(_as_the_cloud_sees(s, replica))
    return tuple(replicas)


def _as_the_cloud_sees(s: Snapshot, replica: Replica) -> Replica:
    outage = s.outages.get(replica.name)
    if outage is None or replica.phase is ReplicaPhase.DRAINING:
        return replica
    facts = {"phase": ReplicaPhase.UNHEALTHY, "reason": outage.reason}
    return replica.model_copy(update=facts | {"unhealthy_since": replica.unhealthy_since or outage.since})


def _realise(view: View, ids: Iterator[str]) -> list[Action]:
    s, plan = view.s, view.plan
    actions: list[Action] = []
    if _says_something(s, plan):
        actions.append(RecordMachines(tuple(plan.machines), plan.made, plan.revision, plan.failures))
    if view.replicas != s.replicas:
        actions.append(RecordReplicas(view.replicas))
    if s.observed_generation < s.realised_generation and not plan.follows:
        actions.append(Observed(s.realised_generation))
    actions += bill(view, ids)
    phase, reason = next_phase(view)
    if (phase, reason) != (s.phase, s.phase_reason):
        actions.append(SetPhase(phase, reason))
    actions += conditions(view, gave_up=has_given_up(s, view.policy))
    actions += _talk_to_agents(view)
    if view.wanted is not None and s.open_update is None and view.retry_at <= view.now:
        actions.append(StartUpdate(f"upd_{next(ids)}", view.wanted, s.generation))
    if wait := _next_look(view):
        actions.append(wait)
    return actions


def _says_something(s: Snapshot, plan: Plan) -> bool:
    before = (s.machines, s.machines_made, s.placement_revision, s.machine_failures)
    return before != (tuple(plan.machines), plan.made, plan.revision, plan.failures)


# Agents


def _talk_to_agents(view: View) -> list[Action]:
    """Health checks, and words about draining: these only once it is recorded, so that none is forgotten."""
    actions: list[Action] = []
    if due := tuple(r.name for r in view.replicas if not _is_told(r) and _next_check(view, r) <= view.now):
        actions.append(ProbeReplicas(due))
    draining = {m.name for m in view.s.machines if m.draining_since is not None}
    recorded = {r.name for r in view.s.replicas if _is_told(r)}
    told = [r for r in view.replicas if r.name in recorded and _is_told(r) and _next_word(view, r) <= view.now]
    if drained := tuple(r.name for r in told if r.name in draining and _drains(view, r)):
        actions.append(DrainReplicas(drained))
    if back := tuple(r.name for r in told if r.name not in draining and not _drains(view, r)):
        actions.append(UndrainReplicas(back))
    return actions


def _is_told(replica: Replica) -> bool:
    return replica.phase is ReplicaPhase.DRAINING


def _drains(view: View, replica: Replica) -> bool:
    return view.machine(replica).draining_since is not None


def _next_word(view: View, replica: Replica) -> datetime:
    return next_word(replica, view.machine(replica), view.policy)


def _next_check(view: View, replica: Replica) -> datetime:
    return next_check(replica, exists_since=view.since(replica), health_period=view.policy.health_period)


def _check_after(view: View, replica: Replica) -> datetime:
    """When a replica is asked next, given that one which is due is asked now and says nothing new."""
    if _is_told(replica):
        due = _next_word(view, replica)
        return due if due > view.now else view.now + view.policy.drain_every
    due = _next_check(view, replica)
    return due if due > view.now else _next_check(view, replica.model_copy(update={"checked_at": view.now}))


def _next_look(view: View) -> Wait | None:
    """The earliest moment at which something can be due that no hint announces."""
    waits = [Wait(_check_after(view, r), "the next health check") for r in view.replicas]
    waits += [Wait(until, "something is due") for until in view.plan.until if until > view.now]
    if view.wanted is not None and view.s.open_update is None and view.retry_at > view.now:
        waits.append(Wait(view.retry_at, "backing off after failures"))
    for replica in (r for r in view.replicas if r.phase is ReplicaPhase.BOOTING):
        deadline = view.since(replica) + view.policy.boot_timeout
        if deadline > view.now:
            waits.append(Wait(deadline, "the boot timeout"))
    return min(waits, key=lambda w: w.until, default=None)
