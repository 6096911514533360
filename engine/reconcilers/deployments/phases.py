"""Which phase of its life a deployment is in. Pure; the transitions are in `engine/model/deployment.py`."""

from __future__ import annotations

from engine.model.deployment import MachineFailure, Phase, Replica, ReplicaPhase
from engine.reconcilers.deployments.view import View

_VIA: dict[tuple[Phase, Phase], Phase] = {
    (Phase.PROVISIONING, Phase.SCALING): Phase.PROVISIONING,
    (Phase.DEGRADED, Phase.ASLEEP): Phase.SCALING,
    (Phase.FAILED, Phase.ASLEEP): Phase.SCALING,
    (Phase.ASLEEP, Phase.ACTIVE): Phase.SCALING,
    (Phase.ASLEEP, Phase.DEGRADED): Phase.SCALING,
    (Phase.ASLEEP, Phase.FAILED): Phase.SCALING,
}
"""Where the life cycle has no direct way: the phase in between, from which the next look goes on."""

_STARTING = (Phase.PROVISIONING, Phase.SCALING, Phase.FAILED)


def next_phase(view: View) -> tuple[Phase, str]:
    """The phase and its reason."""
    goal, why = _goal(view)
    return _VIA.get((view.s.phase, goal), goal), why


def _goal(view: View) -> tuple[Phase, str]:
    s = view.s
    is_behind = s.realised_generation < s.generation
    if is_behind and s.last_up is None:
        if view.blocked:
            return Phase.FAILED, view.blocked
        return (Phase.PROVISIONING, "") if s.phase is Phase.FAILED else (s.phase, s.phase_reason)
    if view.goal == 0:
        return _to_sleep(view)
    if view.ready >= view.goal and not is_behind:
        return Phase.ACTIVE, ""
    failures = view.plan.failures
    if failures is not None and failures.cause is MachineFailure.NO_CAPACITY:
        return _waiting_for_capacity(view, failures.reason)
    if failures is not None and failures.cause is MachineFailure.REFUSED:
        return _by_service(view, failures.reason)
    if view.blocked:
        return _tried_again(view)
    if view.boot_timeout is not None and view.boot_timeout.until > view.now and view.serving:
        return _by_service(view, f"{view.count()}; boot timeout: {view.boot_timeout.reason}")
    if is_behind:
        return Phase.SCALING, f"bringing the stack to generation {s.generation}"
    return _while_not_ready(view)


def _to_sleep(view: View) -> tuple[Phase, str]:
    if view.blocked:
        return _by_service(view, view.blocked)
    is_on_the_way = view.wanted is not None and view.s.phase is not Phase.ASLEEP
    if view.plan.machines or is_on_the_way:
        return Phase.SCALING, "replicas finish what they have" if view.is_draining else "its machines are removed"
    return Phase.ASLEEP, view.s.suspended_reason


def _by_service(view: View, why: str) -> tuple[Phase, str]:
    """Something does not get on: what that means depends on what serves."""
    if view.goal and view.serving >= view.goal:
        return Phase.ACTIVE, ""
    return (Phase.DEGRADED if view.serving else Phase.FAILED), why


def _tried_again(view: View) -> tuple[Phase, str]:
    """Operations fail: requests to a deployment that wakes go on being held through a short outage of the cloud."""
    starts = view.s.phase in (Phase.ASLEEP, Phase.SCALING) and not view.serving
    if starts and view.s.failures < view.policy.give_up_after:
        return Phase.SCALING, f"{view.count()}; tried again: {view.blocked}"
    return _by_service(view, view.blocked)


def _waiting_for_capacity(view: View, words: str) -> tuple[Phase, str]:
    """Not a failure: requests to a deployment that wakes go on being held."""
    if view.serving >= view.goal:
        return Phase.ACTIVE, ""
    starts = view.s.phase in (Phase.ASLEEP, Phase.PROVISIONING, Phase.SCALING) and not view.serving
    return (Phase.SCALING if starts else Phase.DEGRADED), f"{view.count()}; waiting for capacity: {words}"


def _while_not_ready(view: View) -> tuple[Phase, str]:
    """The stack is as the spec wants it, but not all replicas serve."""
    s, why = view.s, f"{view.count()}{view.complaints()}"
    starting = s.phase in _STARTING
    if starting and any(is_late(view, r) for r in view.replicas):
        minutes = view.policy.boot_timeout.total_seconds() / 60
        reason = f"boot timeout: not ready {minutes:g} minutes after its machines were created; {why}"
        return _by_service(view, reason)
    if view.serving >= view.goal and not starting:
        return Phase.ACTIVE, ""  # those that are to be replaced serve
    first_start = s.phase is Phase.PROVISIONING and not view.serving
    if first_start or (starting and not view.lost):
        return (Phase.PROVISIONING, "") if s.phase is Phase.FAILED else (s.phase, s.phase_reason)
    return (Phase.ACTIVE, "") if view.serving >= view.goal else (Phase.DEGRADED, why)


def is_late(view: View, replica: Replica) -> bool:
    """Whether a replica was never ready although its machine is there for long."""
    is_booting = replica.phase is ReplicaPhase.BOOTING
    return is_booting and view.since(replica) + view.policy.boot_timeout <= view.now
