"""Which machines a deployment is to have. Pure: recording the list and bringing the stack to it is done by others.

A machine that suits the spec is *ours*; others serve until ours do. Dead is what the cloud or a long silence says is
lost. What is not needed any more drains before it leaves the list (`draining.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from engine.model.deployment import (
    Machine,
    MachineFailure,
    MachineFailures,
    Phase,
    Replica,
    ReplicaPhase,
    UpdateKind,
    UpdateState,
    new_machine,
)
from engine.model.failure_words import for_tenant, reasons
from engine.reconcilers.deployments.draining import drain_deadline, drained_from, is_drained, taken_back
from engine.reconcilers.deployments.snapshot import Policy, Snapshot

CAPACITY_WORDS = ("capacity", "not available in", "unavailable in", "out of stock", "sold out", "droplet limit")
_NAMED = re.compile(r"\(([\w-]+)\)")
_WORTH = {
    None: 0, ReplicaPhase.UNHEALTHY: 1, ReplicaPhase.BOOTING: 2, ReplicaPhase.DRAINING: 3, ReplicaPhase.READY: 4,
}  # fmt: skip
"""What is kept rather when there are too many; None: it is still to be made."""
_ONE_BY_ONE = (MachineFailure.DIED, MachineFailure.NOT_READY)
"""After these one machine tells whether more would do."""


@dataclass
class Plan:
    """The machines as they are to be recorded, while they are worked out.

    Attributes:
        follows: the set of machines became another: the stack has to follow.
        dead: machines that are lost, and why.
        given_up: machines that never got ready and go for that.
        until: moments at which something is due that nothing announces.
    """

    machines: list[Machine]
    made: int
    failures: MachineFailures | None
    revision: int
    follows: bool = False
    dead: dict[str, str] = field(default_factory=dict)
    given_up: set[str] = field(default_factory=set)
    until: list[datetime] = field(default_factory=list)

    def put(self, machine: Machine) -> None:
        """Replace the machine of that name."""
        self.machines = [machine if m.name == machine.name else m for m in self.machines]

    def remove(self, machine: Machine) -> None:
        """Let a machine go; the next operation destroys it."""
        self.machines = [m for m in self.machines if m.name != machine.name]
        self.follows = True

    def named(self, name: str) -> Machine | None:
        """The machine of that name, if it is to exist."""
        return next((m for m in self.machines if m.name == name), None)

    @property
    def live(self) -> list[Machine]:
        """Those that are not on their way out."""
        return [m for m in self.machines if m.draining_since is None]


@dataclass(frozen=True)
class _Round:
    """What one working out looks at."""

    s: Snapshot
    replicas: dict[str, Replica]
    now: datetime
    policy: Policy

    def phase(self, machine: Machine) -> ReplicaPhase | None:
        replica = self.replicas.get(machine.name)
        return replica.phase if replica is not None else None

    def is_ready(self, machine: Machine) -> bool:
        return self.phase(machine) is ReplicaPhase.READY

    def by_worth(self, machines: Iterable[Machine]) -> list[Machine]:
        """The ones to keep first: serving before booting before unhealthy, then the busiest, then the oldest."""

        def worth(machine: Machine) -> tuple[int, int, int]:
            replica = self.replicas.get(machine.name)
            return _WORTH[self.phase(machine)], replica.in_flight if replica else 0, -machine.number

        return sorted(machines, key=worth, reverse=True)


def plan_machines(s: Snapshot, replicas: Iterable[Replica], now: datetime, policy: Policy) -> Plan:
    """What the list is to be now.

    Args:
        replicas: those that exist, as measured and as the cloud sees them.
    """
    r = _Round(s, {replica.name: replica for replica in replicas}, now, policy)
    failures = s.machine_failures
    if failures is not None and failures.generation != s.generation:
        failures = None  # an edit begins anew
    plan = Plan(list(s.machines), s.machines_made, failures, s.placement_revision)
    _note_made(r, plan)
    _heed_refusals(r, plan)
    plan.dead = _dead(r, plan)
    _heed_boot_timeouts(r, plan)
    _remove_drained(r, plan)
    _settle(r, plan)
    _forget_failures(r, plan)
    if plan.follows:
        plan.revision += 1
    return plan


def _note_made(r: _Round, plan: Plan) -> None:
    up = r.s.last_up
    if up is None:
        return
    ids = {output["name"]: output["id"] for output in up.outputs.replicas}
    known = {replica.name: replica.id for replica in r.s.replicas}
    began = up.started_at or up.requested_at
    for machine in [m for m in plan.machines if m.name in ids]:
        made_anew = known.get(machine.name, ids[machine.name]) != ids[machine.name]
        if machine.exists_since is not None and not made_anew:
            continue
        plan.put(machine.model_copy(update={"begun_at": began, "exists_since": up.finished_at or began}))


def _heed_refusals(r: _Round, plan: Plan) -> None:
    """Let go of what the cloud did not give, so that the operation gets through and the rest is served.

    Not before the first success: then the same operation is tried until it works or is given up. Without words about
    capacity it takes some failures in a row: the cloud may just be away.
    """
    last = r.s.last_update
    if r.s.last_up is None or last is None or last.kind is not UpdateKind.UP or last.state is not UpdateState.FAILED:
        return
    cause = MachineFailure.NO_CAPACITY if says_no_capacity(last.message) else MachineFailure.REFUSED
    known = plan.failures is not None and plan.failures.cause is cause
    if cause is MachineFailure.REFUSED and not known and r.s.failures < r.policy.failed_after:
        return
    named = {name for line in reasons(last.message) for name in _NAMED.findall(line)}
    ended_at = last.finished_at or r.now
    to_be_made = [m for m in plan.machines if m.exists_since is None and m.decided_at <= ended_at]
    refused = [m for m in to_be_made if m.name in named] or (to_be_made if cause is MachineFailure.NO_CAPACITY else [])
    for machine in refused:
        plan.remove(machine)
    if refused:
        plan.failures = _one_more(r, plan.failures, for_tenant(last.message), ended_at, cause)


def says_no_capacity(message: str) -> bool:
    """Whether an operation failed because the cloud has no such machine to give at the moment."""
    text = message.lower()
    return any(words in text for words in CAPACITY_WORDS)


def _one_more(
    r: _Round, before: MachineFailures | None, reason: str, at: datetime, cause: MachineFailure
) -> MachineFailures:
    count = (before.count if before else 0) + 1
    pause = r.policy.boot_pause if cause is MachineFailure.NOT_READY else r.policy.backoff
    return MachineFailures(
        generation=r.s.generation, count=count, reason=reason, cause=cause,
        last_at=at, until=at + pause(count),
    )  # fmt: skip


def _dead(r: _Round, plan: Plan) -> dict[str, str]:
    """Machines the cloud says are down, silent ones, and ones that do not get ready at a wake.

    Where none of a kind ever got ready, the spec may be to blame: more of them would not help.
    """
    dead = {}
    wakes = r.s.told_phase == Phase.ASLEEP and not _is_serving(r, plan)
    for machine in plan.machines:
        if outage := r.s.outages.get(machine.name):
            dead[machine.name] = outage.reason
            continue
        replica = r.replicas.get(machine.name)
        if wakes and _is_late(r, machine):
            dead[machine.name] = f"not ready {_minutes(r)} minutes after it was made"
        if replica is None or replica.phase is not ReplicaPhase.UNHEALTHY or replica.unhealthy_since is None:
            continue
        lost_at = replica.unhealthy_since + r.policy.replace_after
        if lost_at <= r.now:
            dead[machine.name] = replica.reason
        else:
            plan.until.append(lost_at)
    return dead


def _heed_boot_timeouts(r: _Round, plan: Plan) -> None:
    """Give up machines that do not get ready while others serve: the installation pays for them, and nobody gains.

    Not while more of them may come, and never where nothing serves: there a late machine is the best there is.
    """
    _begin_anew_after_boot_timeouts(r, plan)
    ours = _ours(r, plan)
    late = [m for m in ours if _is_late(r, m)]
    enough = sum(r.is_ready(m) for m in ours) >= r.s.spec.replicas
    if not late or enough or not _is_serving(r, plan) or any(_is_coming(r, m) for m in ours):
        return
    words = [f"{m.name}: {r.replicas[m.name].reason}" for m in late if r.replicas[m.name].reason]
    said = f" ({'; '.join(words)})" if words else ""
    for machine in late:
        plan.remove(machine)
        plan.given_up.add(machine.name)
    before = plan.failures if _never_boots(plan) else None
    reason = f"not ready {_minutes(r)} minutes after their machines were made{said}"
    plan.failures = _one_more(r, before, reason, r.now, MachineFailure.NOT_READY)


def _begin_anew_after_boot_timeouts(r: _Round, plan: Plan) -> None:
    """Forget boot timeouts when a later machine got ready, when one that served died, and when nothing is left.

    "Nothing" are machines that may not come back: one that is silent for seconds gets no successor either.
    """
    if plan.failures is None or not _never_boots(plan):
        return
    last_at = plan.failures.last_at
    boots = any(r.is_ready(m) and m.suits(r.s.spec) and m.decided_at >= last_at for m in plan.machines)
    lost = [r.replicas[m.name].unhealthy_since for m in plan.live if m.name in plan.dead and m.suits(r.s.spec)]
    holds_out = any(
        r.phase(m) in (ReplicaPhase.READY, ReplicaPhase.UNHEALTHY) and m.name not in plan.dead for m in plan.machines
    )
    if boots or not holds_out or any(since is not None and since > last_at for since in lost):
        plan.failures = None


def _never_boots(plan: Plan) -> bool:
    """Whether machines were given up lately because they never got ready."""
    return plan.failures is not None and plan.failures.cause is MachineFailure.NOT_READY


def _is_serving(r: _Round, plan: Plan) -> bool:
    """Whether any replica gets requests, of whatever kind."""
    return any(r.is_ready(m) for m in plan.machines)


def _is_late(r: _Round, machine: Machine) -> bool:
    return r.phase(machine) is ReplicaPhase.BOOTING and not _boots(r, machine)


def _minutes(r: _Round) -> str:
    return f"{r.policy.boot_timeout.total_seconds() / 60:g}"


def _remove_drained(r: _Round, plan: Plan) -> None:
    for machine in [m for m in plan.machines if m.draining_since is not None]:
        if machine.name in r.s.outages or is_drained(machine, r.replicas.get(machine.name), r.now, r.policy):
            plan.remove(machine)
        elif deadline := drain_deadline(machine, r.policy):
            plan.until.append(deadline)


# Towards the number that is wanted


def _settle(r: _Round, plan: Plan) -> None:
    """Keep what is wanted, take back what drains and is wanted again, let the rest go, add what is missing."""
    wanted = r.s.spec.replicas
    _remove_gone(r, plan)
    ours = r.by_worth(_ours(r, plan))[:wanted]
    ours += _take_back(r, plan, r.by_worth(m for m in _draining(plan) if m.suits(r.s.spec)), wanted - len(ours))
    short = wanted - sum(r.is_ready(m) for m in ours)
    helpers = r.by_worth(m for m in plan.live if m not in ours and _may_help(r, plan, m))[:short]
    helpers += _take_back(r, plan, r.by_worth(_draining(plan)), short - len(helpers))
    for machine in [m for m in plan.live if m not in ours and m not in helpers]:
        _let_go(r, plan, machine)
    if wanted > len(ours):
        _add_missing(r, plan, ours, wanted - len(ours))


def _ours(r: _Round, plan: Plan) -> list[Machine]:
    return [m for m in plan.live if m.suits(r.s.spec) and m.name not in plan.dead]


def _draining(plan: Plan) -> list[Machine]:
    return [m for m in plan.machines if m.draining_since is not None and m.name not in plan.dead]


def _remove_gone(r: _Round, plan: Plan) -> None:
    """Machines that do not exist any more: nothing of them can be waited for."""
    for machine in [m for m in plan.live if (seen := r.s.outages.get(m.name)) is not None and seen.is_gone]:
        plan.remove(machine)
        _note_death(r, plan, machine)


def _note_death(r: _Round, plan: Plan, machine: Machine) -> None:
    """Deaths in a row make the pauses between successors longer."""
    if machine.suits(r.s.spec) and (plan.failures is None or plan.failures.cause is MachineFailure.DIED):
        reason = f"{machine.name}: {plan.dead[machine.name]}"
        plan.failures = _one_more(r, plan.failures, reason, r.now, MachineFailure.DIED)


def _take_back(r: _Round, plan: Plan, draining: list[Machine], count: int) -> list[Machine]:
    back = [taken_back(m, r.now, r.policy) for m in draining[: max(0, count)]]
    for machine in back:
        plan.put(machine)
    return back


def _may_help(r: _Round, plan: Plan, machine: Machine) -> bool:
    """Whether one that is to be replaced may stay until its successor is ready: it serves, or may come back before."""
    if machine.suits(r.s.spec):
        return machine.name in plan.dead
    return r.phase(machine) in (ReplicaPhase.READY, ReplicaPhase.UNHEALTHY, ReplicaPhase.DRAINING)


def _let_go(r: _Round, plan: Plan, machine: Machine) -> None:
    """What never served has nothing to finish."""
    if r.phase(machine) in (None, ReplicaPhase.BOOTING):
        plan.remove(machine)
    else:
        plan.put(drained := drained_from(machine, r.now, r.policy))
        plan.until.append(drain_deadline(drained, r.policy))


def _add_missing(r: _Round, plan: Plan, ours: list[Machine], missing: int) -> None:
    """All at once; one after the other where machines die or do not boot, and none before the pause is over."""
    if plan.failures is not None and plan.failures.until > r.now:
        plan.until.append(plan.failures.until)
        return
    lost = [m for m in plan.live if m.suits(r.s.spec) and m.name in plan.dead]
    replaces = ""
    if lost or (plan.failures is not None and plan.failures.cause in _ONE_BY_ONE):
        if any(_is_coming(r, m) for m in ours):
            return
        missing = 1
    if lost:
        followed = {m.replaces for m in ours}
        first = next((m for m in lost if m.name not in followed), lost[0])
        replaces = first.name
        _note_death(r, plan, first)
    for _ in range(missing):
        plan.machines.append(
            new_machine(r.s.spec, revision=r.s.revision, number=plan.made, now=r.now, replaces=replaces)
        )
        plan.made += 1
        plan.follows = True


def _is_coming(r: _Round, machine: Machine) -> bool:
    """Whether a machine may be ready soon: one that boots for too long is not waited for."""
    return not r.is_ready(machine) and _boots(r, machine)


def _boots(r: _Round, machine: Machine) -> bool:
    return machine.exists_since is None or machine.exists_since + r.policy.boot_timeout > r.now


def _forget_failures(r: _Round, plan: Plan) -> None:
    """Once all are there. Boot timeouts are forgotten elsewhere: fewer being wanted proves nothing."""
    failures = plan.failures
    if failures is None or _never_boots(plan) or plan.dead:
        return
    if sum(r.is_ready(m) for m in _ours(r, plan)) < r.s.spec.replicas:
        return
    if failures.cause is not MachineFailure.DIED or failures.last_at + r.policy.steady_after <= r.now:
        plan.failures = None
