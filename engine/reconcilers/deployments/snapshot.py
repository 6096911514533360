"""What is known about one deployment at one moment, and what can be done about it. Values only: no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from engine.model.deployment import (
    Condition,
    DeploymentSpec,
    Machine,
    MachineFailures,
    Phase,
    Replica,
    UpdateKind,
    UpdateState,
)
from engine.model.stack import StackOutputs

STACK_UPDATED = "StackUpdated"
REPLICAS_READY = "ReplicasReady"
CAPACITY_AVAILABLE = "CapacityAvailable"
REPLACED = "Replaced"
RESOURCES_PRESENT = "ResourcesPresent"


@dataclass(frozen=True)
class UpdateView:
    """One stack operation, as far as decisions need it."""

    id: str
    kind: UpdateKind
    state: UpdateState
    generation: int
    requested_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error_code: str = ""
    message: str = ""
    outputs: StackOutputs = field(default_factory=StackOutputs)


@dataclass(frozen=True)
class Usage:
    """An interval of billing that still runs."""

    replica: str
    started_at: datetime


@dataclass(frozen=True)
class Outage:
    """What the cloud says of a machine that cannot serve.

    Attributes:
        is_gone: it does not exist any more, so that there is nothing to wait for or to remove.
    """

    reason: str
    since: datetime
    is_gone: bool


@dataclass(frozen=True)
class Snapshot:
    """One deployment, read in one transaction.

    Attributes:
        spec: what its stack is to be: without replicas while it is suspended.
        suspended_reason: why it runs nothing; "" while it is not suspended.
        open_update: the operation that is queued or running on its stack.
        last_update: the operation that ended last.
        last_up: the last `up` that succeeded: its outputs say which replicas exist.
        last_refresh: the last `refresh` that succeeded.
        last_destroy: the last `destroy` that succeeded.
        failures: operations that failed in a row, of the same kind and generation as the last one.
        open_usage: what is being billed.
        machines: those it is to have; numbers below `machines_made` were given out.
        placement_revision: of `machines`; raised where the stack has to follow.
        machine_failures: what could not be had, or died, in a row; None: nothing.
        outages: replica → what the cloud says is wrong with its machine.
        told_phase: the last phase subscribers were told of; "" before it ever was up.
    """

    deployment_id: str
    spec: DeploymentSpec
    generation: int
    revision: int
    phase: Phase
    created_at: datetime
    phase_reason: str = ""
    observed_generation: int = 0
    replicas: tuple[Replica, ...] = ()
    conditions: tuple[Condition, ...] = ()
    suspended_reason: str = ""
    spec_changed_at: datetime | None = None
    delete_requested_at: datetime | None = None
    open_update: UpdateView | None = None
    last_update: UpdateView | None = None
    last_up: UpdateView | None = None
    last_refresh: UpdateView | None = None
    last_destroy: UpdateView | None = None
    failures: int = 0
    open_usage: tuple[Usage, ...] = ()
    machines: tuple[Machine, ...] = ()
    machines_made: int = 0
    placement_revision: int = 0
    machine_failures: MachineFailures | None = None
    outages: Mapping[str, Outage] = field(default_factory=dict)
    told_phase: str = ""

    def condition(self, type_: str) -> Condition | None:
        """The condition of that type, if it was ever set."""
        return next((c for c in self.conditions if c.type == type_), None)

    @property
    def realised_generation(self) -> int:
        """The generation of the spec that the stack was last brought to; an operation uses the newest one it finds."""
        if self.last_up is None:
            return 0
        return min(self.generation, max(self.last_up.generation, self.last_up.outputs.generation))

    @property
    def realised_placement(self) -> int:
        """The revision of the machines that the stack was last brought to."""
        return self.last_up.outputs.placement_revision if self.last_up else -1

    def verify_integrity(self) -> list[str]:
        """What can never be true, found; [] when all is well."""
        names = [r.name for r in self.replicas]
        usage = [u.replica for u in self.open_usage]
        machines = [m.name for m in self.machines]
        rules = {
            "two replicas have the same name": len(names) != len(set(names)),
            "two machines have the same name": len(machines) != len(set(machines)),
            "a number was used that was not given out": any(m.number >= self.machines_made for m in self.machines),
            "its stack is ahead of its machines": self.realised_placement > self.placement_revision,
            "a replica is billed twice": len(usage) != len(set(usage)),
            "gone, but an operation is open": self.phase is Phase.INACTIVE and self.open_update is not None,
            "gone, but still billed": self.phase is Phase.INACTIVE and bool(usage),
            "gone, but has replicas": self.phase is Phase.INACTIVE and bool(names),
            "torn down although nobody asked": self.phase in (Phase.TEARDOWN, Phase.INACTIVE)
            and self.delete_requested_at is None,
            "observed a generation that does not exist": self.observed_generation > self.generation,
        }
        return [rule for rule, broken in rules.items() if broken]


@dataclass(frozen=True)
class Policy:
    """Numbers decisions are made with.

    Attributes:
        health_period: how often a ready replica is asked.
        boot_timeout: a replica that is not ready by then makes the deployment fail, or is given up where others serve.
        longest_boot_pause: between attempts to make machines that get ready; the first pause is as long as the
            boot timeout, and they double: each attempt costs a machine for that long.
        unhealthy_after: failed checks in a row that make a replica unhealthy.
        failed_after: failed operations in a row that make a deployment without ready replicas fail.
        give_up_after: failed operations in a row after which one that never ran is given up; with the pauses below
            they take some twelve minutes, so that a short outage of the cloud is waited out.
        first_backoff, longest_backoff: pauses after the first and after many failures; doubled in between.
        verify_every, longest_verify: pauses between asking the cloud whether a destroyed deployment is gone.
        leftovers_after: resources still there so long after a successful destroy are deleted one by one.
        drain_notice: how long before its agent is told gateways know that a replica drains.
        drain_every: how often a draining replica is asked whether it has work left.
        drain_limit: for how long it is waited for.
        replace_after: a replica that is unhealthy for so long gets a successor.
        steady_after: without another death for so long, earlier ones are forgotten.
    """

    health_period: timedelta = timedelta(seconds=5)
    boot_timeout: timedelta = timedelta(seconds=1200)
    longest_boot_pause: timedelta = timedelta(hours=6)
    unhealthy_after: int = 3
    failed_after: int = 5
    give_up_after: int = 12
    first_backoff: timedelta = timedelta(seconds=1)
    longest_backoff: timedelta = timedelta(seconds=120)
    verify_every: timedelta = timedelta(seconds=1)
    longest_verify: timedelta = timedelta(seconds=60)
    leftovers_after: timedelta = timedelta(seconds=5)
    drain_notice: timedelta = timedelta(seconds=1)
    drain_every: timedelta = timedelta(seconds=1)
    drain_limit: timedelta = timedelta(seconds=300)
    replace_after: timedelta = timedelta(seconds=120)
    steady_after: timedelta = timedelta(seconds=600)

    def backoff(self, failures: int) -> timedelta:
        """How long to wait after so many failures in a row (≥ 1)."""
        return min(self.longest_backoff, self.first_backoff * _doubled(failures))

    def boot_pause(self, failures: int) -> timedelta:
        """How long nothing is made after so many attempts in a row (≥ 1) whose machines did not get ready."""
        return min(max(self.longest_boot_pause, self.boot_timeout), self.boot_timeout * _doubled(failures))

    def verify_pause(self, age: timedelta) -> timedelta:
        """How long to wait after asking the cloud `age` after the destroy: as long again, so that pauses double."""
        return min(self.longest_verify, max(self.verify_every, age))


def _doubled(failures: int) -> int:
    return 1 << min(max(failures, 1) - 1, 20)


@dataclass(frozen=True)
class StartUpdate:
    """Ask the controller for a stack operation."""

    update_id: str
    kind: UpdateKind
    generation: int


@dataclass(frozen=True)
class SetPhase:
    """Move along the life cycle."""

    phase: Phase
    reason: str = ""


@dataclass(frozen=True)
class Observed:
    """The status now describes this generation."""

    generation: int


@dataclass(frozen=True)
class RecordReplicas:
    """These replicas exist."""

    replicas: tuple[Replica, ...]


@dataclass(frozen=True)
class RecordMachines:
    """These machines are to exist."""

    machines: tuple[Machine, ...]
    machines_made: int
    placement_revision: int
    machine_failures: MachineFailures | None


@dataclass(frozen=True)
class DrainReplicas:
    """Tell the agents of these replicas to accept nothing new, and record what they still have."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class UndrainReplicas:
    """Tell the agents of these replicas to accept requests again; those that say yes are ready."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class ProbeReplicas:
    """Ask these replicas for their health and record the answers."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class OpenUsage:
    """Bill a replica from `started_at` at the price of its GPU type."""

    interval_id: str
    replica: str
    started_at: datetime
    gpu_type: str


@dataclass(frozen=True)
class CloseUsage:
    """Bill a replica no longer than until `ended_at`."""

    replica: str
    ended_at: datetime


@dataclass(frozen=True)
class SetConditions:
    """Set these conditions; others stay."""

    conditions: tuple[Condition, ...]


@dataclass(frozen=True)
class VerifyGone:
    """Ask the cloud whether anything of this deployment is left; record it as `ResourcesPresent`."""


@dataclass(frozen=True)
class DeleteLeftovers:
    """Delete what the cloud still lists of this deployment although its stack is destroyed."""


@dataclass(frozen=True)
class MarkDeleted:
    """The cloud says gone: the end of the life cycle."""


@dataclass(frozen=True)
class Wait:
    """Nothing to do before `until`."""

    until: datetime
    reason: str


Action = (
    StartUpdate
    | SetPhase
    | Observed
    | RecordReplicas
    | RecordMachines
    | DrainReplicas
    | UndrainReplicas
    | ProbeReplicas
    | OpenUsage
    | CloseUsage
    | SetConditions
    | VerifyGone
    | DeleteLeftovers
    | MarkDeleted
    | Wait
)
