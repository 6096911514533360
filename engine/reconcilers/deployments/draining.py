"""When a draining replica has finished, and when it is asked next. Pure: `probe.py` asks."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from engine.model.deployment import Machine, Replica, ReplicaPhase
from engine.reconcilers.deployments.snapshot import Policy

EARNED = 0.1
"""Seconds of draining that each second earns in which a machine is wanted.

Draining is not billed: whoever gave machines up and wanted them back, again and again, would have them
for next to nothing.
"""


def drained_from(machine: Machine, now: datetime, policy: Policy) -> Machine:
    """The machine as it begins to drain."""
    left = machine.drain_left
    if left is not None and machine.wanted_since is not None:
        left = min(policy.drain_limit.total_seconds(), left + EARNED * (now - machine.wanted_since).total_seconds())
    return machine.model_copy(update={"draining_since": now, "drain_left": left})


def taken_back(machine: Machine, now: datetime, policy: Policy) -> Machine:
    """The machine, wanted again."""
    left = max(0.0, (drain_deadline(machine, policy) - now).total_seconds())
    return machine.model_copy(update={"draining_since": None, "wanted_since": now, "drain_left": left})


def is_drained(machine: Machine, replica: Replica | None, now: datetime, policy: Policy) -> bool:
    """Whether a machine may go: its agent has nothing left or does not answer, or it was waited for long enough."""
    if replica is None or drain_deadline(machine, policy) <= now:
        return True
    if replica.phase is not ReplicaPhase.DRAINING or replica.checked_at is None:
        return False  # it was not told yet
    if replica.failed_checks:
        return replica.failed_checks >= policy.unhealthy_after
    return replica.in_flight == 0


def drain_deadline(machine: Machine, policy: Policy) -> datetime:
    """Until when a draining machine is waited for."""
    left = policy.drain_limit if machine.drain_left is None else timedelta(seconds=machine.drain_left)
    shortest = policy.drain_notice + policy.drain_every  # what gateways need to know of it
    return (machine.draining_since or machine.decided_at) + max(min(left, policy.drain_limit), shortest)


def as_planned(
    replicas: Iterable[Replica], before: Iterable[Machine], planned: Iterable[Machine]
) -> tuple[Replica, ...]:
    """The replicas of the machines that are to exist; one whose draining begins or ends is to be told at once."""
    drained_before = {m.name for m in before if m.draining_since is not None}
    machines = {m.name: m for m in planned}
    told_anew = {"phase": ReplicaPhase.DRAINING, "checked_at": None}
    found = []
    for replica in replicas:
        machine = machines.get(replica.name)
        if machine is None:
            continue
        is_draining = machine.draining_since is not None
        if is_draining != (machine.name in drained_before):
            replica = replica.model_copy(update=told_anew)
        found.append(replica)
    return tuple(found)


def next_word(replica: Replica, machine: Machine, policy: Policy) -> datetime:
    """When a replica's agent is told (again) to drain, or not to; in the past when it is due.

    Gateways know before agents do: who is told first refuses what a gateway still sends.
    """
    if replica.checked_at is not None:
        return replica.checked_at + policy.drain_every
    return machine.draining_since + policy.drain_notice if machine.draining_since else machine.decided_at
