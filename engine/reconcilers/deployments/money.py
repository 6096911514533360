"""Which machines are billed from when until when: never more at a time than are wanted. Pure.

Dates are those of requests and operations, not of looks: from the start of the operation that made a machine to the
acceptance of the edit that takes it away, however late this runs. A machine that stands in for another is the
installation's until that one is gone; then its billing goes on where the other's ends. One that is given up because it
never got ready costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from engine.model.deployment import Machine, Replica, ReplicaPhase
from engine.reconcilers.deployments.snapshot import CloseUsage, OpenUsage, Snapshot
from engine.reconcilers.deployments.view import View


def bill(view: View, ids: Iterator[str]) -> list[CloseUsage | OpenUsage]:
    """The intervals to end and to begin."""
    s = view.s
    billed = [u.replica for u in s.open_usage]
    actions: list[CloseUsage | OpenUsage] = []
    excess = _least_wanted(view, billed)[: max(0, len(billed) - view.goal)]
    for name in excess:
        actions.append(CloseUsage(name, billed_until(s, name, s.spec_changed_at or view.now)))
    kept = [name for name in billed if name not in excess]
    freed: list[datetime] = []
    for name in [n for n in kept if view.plan.named(n) is None]:
        if name in view.plan.given_up:  # it never got ready: its owner got nothing for it
            freed.append(view.now)
            actions.append(CloseUsage(name, _began(s, name)))
            continue
        freed.append(_handed_over_at(s, name, view.now))
        actions.append(CloseUsage(name, freed[-1]))
    running = [name for name in kept if view.plan.named(name) is not None]
    actions += _made_anew(view, running, ids)
    return actions + _begin(view, set(running), sorted(freed), ids)


def _least_wanted(view: View, billed: list[str]) -> list[str]:
    """Those nobody wants any more first: gone, then on their way out, then the youngest."""

    def order(name: str) -> tuple[int, int]:
        machine = view.plan.named(name)
        if machine is None:
            return 0, 0
        return (1 if machine.draining_since is not None else 2), -machine.number

    return sorted(billed, key=order)


def _began(s: Snapshot, name: str) -> datetime:
    return next(u.started_at for u in s.open_usage if u.replica == name)


def _handed_over_at(s: Snapshot, name: str, now: datetime) -> datetime:
    """When the billing of one that is replaced ends: now, or when the outage began that it did not survive."""
    replica = _replica(s, name)
    lost = replica is not None and (
        name in s.outages or replica.phase is ReplicaPhase.UNHEALTHY or _went_silent(replica)
    )
    return min(now, replica.unhealthy_since) if replica and lost and replica.unhealthy_since else now


def _went_silent(replica: Replica) -> bool:
    return replica.phase is ReplicaPhase.DRAINING and replica.failed_checks > 0


def billed_until(s: Snapshot, name: str, accepted_at: datetime) -> datetime:
    """When billing of a replica nobody wants any more ends: with the request, or with the loss of its machine.

    A silent machine still exists and costs; one that the cloud does not know any more has not cost since its outage.
    """
    outage = s.outages.get(name)
    if outage is None or not outage.is_gone:
        return accepted_at
    replica = _replica(s, name)
    return min(accepted_at, (replica.unhealthy_since if replica else None) or outage.since)


def _replica(s: Snapshot, name: str) -> Replica | None:
    return next((r for r in s.replicas if r.name == name), None)


def _made_anew(view: View, running: list[str], ids: Iterator[str]) -> list[CloseUsage | OpenUsage]:
    """A machine that vanished and was made again under its name: the time between is not billed."""
    now_there = {r.name: r.id for r in view.replicas}
    actions: list[CloseUsage | OpenUsage] = []
    for name in running:
        machine, before = view.plan.named(name), _replica(view.s, name)
        if machine is None or machine.begun_at is None or before is None or name not in now_there:
            continue
        if before.id != now_there[name]:
            began = machine.begun_at
            actions.append(CloseUsage(name, min(before.unhealthy_since or began, began)))
            actions.append(OpenUsage(f"use_{next(ids)}", name, began, machine.gpu_type))
    return actions


def _begin(view: View, running: set[str], freed: list[datetime], ids: Iterator[str]) -> list[CloseUsage | OpenUsage]:
    """Bill what is wanted and exists, as far as others' intervals leave room: what serves first."""
    ready = {r.name for r in view.replicas if r.phase is ReplicaPhase.READY}

    def order(machine: Machine) -> tuple[bool, int]:
        return machine.name not in ready, machine.number

    unbilled = [m for m in view.plan.live if m.begun_at is not None and m.name not in running]
    actions: list[CloseUsage | OpenUsage] = []
    for machine in sorted(unbilled, key=order)[: max(0, view.goal - len(running))]:
        began = machine.begun_at or view.now
        earliest = freed.pop(0) if freed else view.s.spec_changed_at or began
        actions.append(OpenUsage(f"use_{next(ids)}", machine.name, max(began, earliest), machine.gpu_type))
    return actions
