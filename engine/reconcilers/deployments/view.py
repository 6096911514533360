"""One look at a deployment: its snapshot, and what was worked out from it. What phases, conditions and money read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from engine.model.deployment import Machine, MachineFailure, MachineFailures, Replica, ReplicaPhase, UpdateKind
from engine.reconcilers.deployments.machines import Plan
from engine.reconcilers.deployments.snapshot import Policy, Snapshot


@dataclass(frozen=True)
class View:
    """Everything one look knows.

    Attributes:
        replicas: those that exist and are to, as they are recorded.
        wanted: the operation that is due; None: the stack is as it is to be.
        retry_at: when it may start.
        blocked: why operations do not get on; "" while they may still.
    """

    s: Snapshot
    plan: Plan
    replicas: tuple[Replica, ...]
    wanted: UpdateKind | None
    retry_at: datetime
    blocked: str
    now: datetime
    policy: Policy

    @property
    def goal(self) -> int:
        """How many replicas are wanted."""
        return self.s.spec.replicas

    @property
    def serving(self) -> int:
        """How many replicas get requests, also ones that are to be replaced."""
        return sum(r.phase is ReplicaPhase.READY for r in self.replicas)

    @property
    def ready(self) -> int:
        """How many replicas of the wanted kind get requests."""
        ours = {m.name for m in self.plan.live if m.suits(self.s.spec)}
        return sum(r.phase is ReplicaPhase.READY and r.name in ours for r in self.replicas)

    @property
    def is_draining(self) -> bool:
        """Whether something finishes what it has."""
        return any(m.draining_since is not None for m in self.plan.machines)

    @property
    def lost(self) -> list[Replica]:
        """Replicas that do not answer, or whose machine is down."""
        return [r for r in self.replicas if r.phase is ReplicaPhase.UNHEALTHY]

    @property
    def boot_timeout(self) -> MachineFailures | None:
        """The machines that were given up because they never got ready, while others are wanted in their place."""
        failures = self.plan.failures
        if failures is None or failures.cause is not MachineFailure.NOT_READY or self.ready >= self.goal:
            return None
        return failures

    def machine(self, replica: Replica) -> Machine:
        """The machine of a replica."""
        return next(m for m in self.plan.machines if m.name == replica.name)

    def since(self, replica: Replica) -> datetime:
        """When its machine came to exist."""
        return self.machine(replica).exists_since or self.s.created_at

    def complaints(self) -> str:
        """Why replicas are not ready, in brackets; "" when nobody says anything."""
        found = [f"{r.name}: {r.reason}" for r in self.replicas if r.phase is not ReplicaPhase.READY and r.reason]
        return f" ({'; '.join(found)})" if found else ""

    def count(self) -> str:
        """How many serve, as people read it."""
        return f"{self.serving} of {self.goal} replicas are ready"
