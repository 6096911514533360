"""What is known about one pod at one moment, and what can be done about it. Values only: no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType

from engine.model.deployment import Condition, UpdateKind
from engine.model.pod import Offer, Place, PodMachine, PodPhase, PodSpec
from engine.reconcilers.deployments.snapshot import RESOURCES_PRESENT, STACK_UPDATED, UpdateView, Usage

GPU = "gpu"
VOLUME = "volume"
"""What a pod is billed for: the two names its usage intervals go by."""

SSH_REACHABLE = "SshReachable"
CONTAINER_UP = "ContainerUp"
CAPACITY_AVAILABLE = "CapacityAvailable"

__all__ = ["CAPACITY_AVAILABLE", "CONTAINER_UP", "GPU", "RESOURCES_PRESENT", "SSH_REACHABLE", "STACK_UPDATED", "VOLUME"]


@dataclass(frozen=True)
class PodSnapshot:
    """One pod, read in one transaction.

    Attributes:
        is_wished: whether its user wishes it to run, and nobody suspended it.
        failed_generation: the generation whose attempts were given up; 0 for none. An edit begins anew.
        place: where it is; None before it was placed, and after attempts that made nothing lasting.
        held_gpus: how much capacity of its place it holds.
        machine: what runs, as recorded; None while nothing does.
        ports: port inside → port outside, chosen when it was placed, kept over stops.
        taken_ports: those that other pods have on its Docker host.
        precharged: the usage interval whose first hour is held although it has not begun; "" for none.
        offers: where it could be now, best first; computed for pods that hold no capacity.
        passed_over: why other places were not offered, in sentences.
    """

    pod_id: str
    spec: PodSpec
    generation: int
    revision: int
    phase: PodPhase
    created_at: datetime
    is_wished: bool = True
    failed_generation: int = 0
    phase_reason: str = ""
    observed_generation: int = 0
    place: Place | None = None
    held_gpus: int = 0
    machine: PodMachine | None = None
    ports: Mapping[int, int] = field(default_factory=lambda: MappingProxyType({}))
    taken_ports: frozenset[int] = frozenset()
    conditions: tuple[Condition, ...] = ()
    suspended_reason: str = ""
    spec_changed_at: datetime | None = None
    delete_requested_at: datetime | None = None
    precharged: str = ""
    open_update: UpdateView | None = None
    last_update: UpdateView | None = None
    last_up: UpdateView | None = None
    last_refresh: UpdateView | None = None
    last_destroy: UpdateView | None = None
    failures: int = 0
    open_usage: tuple[Usage, ...] = ()
    offers: tuple[Offer, ...] = ()
    passed_over: tuple[str, ...] = ()

    def condition(self, type_: str) -> Condition | None:
        """The condition of that type, if it was ever set."""
        return next((c for c in self.conditions if c.type == type_), None)

    def is_billed(self, what: str) -> bool:
        """Whether an interval of `GPU` or `VOLUME` runs."""
        return any(u.replica == what for u in self.open_usage)

    @property
    def has_given_up(self) -> bool:
        """Whether this generation's attempts are over."""
        return self.failed_generation == self.generation

    @property
    def wants_machine(self) -> bool:
        """Whether its stack is to have a machine."""
        return self.is_wished and not self.has_given_up

    @property
    def live_up(self) -> UpdateView | None:
        """The last `up` that succeeded, if its stack was not destroyed since."""
        up, destroy = self.last_up, self.last_destroy
        if up is None or up.finished_at is None:
            return None
        if destroy is not None and destroy.finished_at is not None and destroy.finished_at >= up.finished_at:
            return None
        return up

    @property
    def has_data(self) -> bool:
        """Whether it ever had a machine, so that its volume may hold what somebody needs."""
        return self.is_billed(VOLUME) or (self.live_up is not None and bool(self.live_up.outputs.replicas))

    def verify_integrity(self) -> list[str]:
        """What can never be true, found; [] when all is well."""
        billed = [u.replica for u in self.open_usage]
        is_over = self.phase is PodPhase.TERMINATED
        rules = {
            "billed twice": len(billed) != len(set(billed)),
            "billed for something unknown": not set(billed) <= {GPU, VOLUME},
            "gone, but an operation is open": is_over and self.open_update is not None,
            "gone, but still billed": is_over and bool(billed),
            "gone, but it holds capacity": is_over and self.held_gpus > 0,
            "gone, but an hour is held for it": is_over and bool(self.precharged),
            "it runs, but holds no capacity": self.machine is not None and self.held_gpus == 0,
            "it holds capacity nowhere": self.held_gpus > 0 and self.place is None,
            "stopped, but its GPU is billed": self.phase is PodPhase.STOPPED and GPU in billed,
            "stopped, but it has a machine": self.phase is PodPhase.STOPPED and self.machine is not None,
            "runs without a machine": self.phase is PodPhase.RUNNING and self.machine is None,
            "torn down although nobody asked": self.phase in (PodPhase.TEARDOWN, PodPhase.TERMINATED)
            and self.delete_requested_at is None,
            "observed a generation that does not exist": self.observed_generation > self.generation,
        }
        return [rule for rule, broken in rules.items() if broken]


@dataclass(frozen=True)
class PodPolicy:
    """Numbers decisions are made with.

    Attributes:
        give_up_after: failed operations in a row after which a pod fails; with the pauses some two minutes. Its user
            waits in front of it, and an hour's money is held meanwhile.
        first_backoff, longest_backoff: pauses after the first and after many failures; doubled in between.
        verify_every, longest_verify: pauses between asking the target whether a deleted pod is gone.
        leftovers_after: what is still there so long after a successful destroy is deleted one by one.
        ssh_schedule: (while younger than, ask this often) a machine whose SSH server does not answer yet.
        ssh_period: how often one that answers, or has not for long, is asked.
        silent_period: how often an SSH server that answered before is asked while it does not.
        lost_after: how long it has to be silent before its machine is looked for.
        container_period: how often a Docker host is asked for a pod's container.
        steady_after: a container that was started again is steady once it ran for so long.
    """

    give_up_after: int = 8
    first_backoff: timedelta = timedelta(seconds=1)
    longest_backoff: timedelta = timedelta(seconds=120)
    verify_every: timedelta = timedelta(seconds=1)
    longest_verify: timedelta = timedelta(seconds=60)
    leftovers_after: timedelta = timedelta(seconds=5)
    ssh_schedule: tuple[tuple[timedelta, timedelta], ...] = (
        (timedelta(seconds=15), timedelta(seconds=0.25)),
        (timedelta(minutes=15), timedelta(seconds=3)),
    )
    ssh_period: timedelta = timedelta(seconds=60)
    silent_period: timedelta = timedelta(seconds=3)
    lost_after: timedelta = timedelta(seconds=15)
    container_period: timedelta = timedelta(seconds=10)
    steady_after: timedelta = timedelta(seconds=30)

    def backoff(self, failures: int) -> timedelta:
        """How long to wait after so many failures in a row (≥ 1)."""
        doublings = min(max(failures, 1) - 1, 20)
        return min(self.longest_backoff, self.first_backoff * (1 << doublings))

    def verify_pause(self, age: timedelta) -> timedelta:
        """How long to wait after asking the target `age` after the destroy: as long again, so that pauses double."""
        return min(self.longest_verify, max(self.verify_every, age))

    def ssh_pause(self, age: timedelta, *, answers: bool) -> timedelta:
        """How long to wait after asking the SSH server of a machine of that age."""
        if answers:
            return self.ssh_period
        return next((every for younger_than, every in self.ssh_schedule if age < younger_than), self.ssh_period)


@dataclass(frozen=True)
class Hold:
    """Take capacity at this offer; the first time it is the pod's place for good."""

    offer: Offer
    ports: Mapping[int, int]


@dataclass(frozen=True)
class Release:
    """Give the capacity back; with `leave`, the place too: nothing of the pod is there."""

    leave: bool = False


@dataclass(frozen=True)
class GiveUp:
    """This generation's attempts are over."""

    generation: int


@dataclass(frozen=True)
class StartUpdate:
    """Ask the controller for a stack operation."""

    update_id: str
    kind: UpdateKind
    generation: int


@dataclass(frozen=True)
class SetPhase:
    """Move along the life cycle."""

    phase: PodPhase
    reason: str = ""


@dataclass(frozen=True)
class Observed:
    """The status now describes this generation."""

    generation: int


@dataclass(frozen=True)
class RecordMachine:
    """This runs, or nothing does."""

    machine: PodMachine | None


@dataclass(frozen=True)
class UsePorts:
    """Publish at other ports: somebody else has the ones it had."""

    ports: Mapping[int, int]


@dataclass(frozen=True)
class AskSsh:
    """Ask the machine's SSH server for its greeting and record it as `SshReachable`."""

    machine: PodMachine
    port: int
    since: datetime


@dataclass(frozen=True)
class LookAtContainer:
    """Ask the Docker host for the container and record it as `ContainerUp`."""

    machine: PodMachine
    since: datetime


@dataclass(frozen=True)
class OpenUsage:
    """Bill `GPU` or `VOLUME` from `started_at`."""

    interval_id: str
    what: str
    started_at: datetime


@dataclass(frozen=True)
class CloseUsage:
    """Bill `GPU` or `VOLUME` no longer than until `ended_at`."""

    what: str
    ended_at: datetime


@dataclass(frozen=True)
class ReleasePrecharge:
    """Give the held hour back: what it was for will not begin."""

    interval_id: str


@dataclass(frozen=True)
class SetConditions:
    """Set these conditions; others stay."""

    conditions: tuple[Condition, ...]


@dataclass(frozen=True)
class VerifyGone:
    """Ask the target whether anything of this pod is left; record it as `ResourcesPresent`."""


@dataclass(frozen=True)
class DeleteLeftovers:
    """Delete what the target still has of this pod although its stack is destroyed."""


@dataclass(frozen=True)
class MarkDeleted:
    """The target says gone: the end of the life cycle."""


@dataclass(frozen=True)
class Wait:
    """Nothing to do before `until`."""

    until: datetime
    reason: str


Action = (
    Hold
    | Release
    | GiveUp
    | StartUpdate
    | SetPhase
    | Observed
    | RecordMachine
    | UsePorts
    | AskSsh
    | LookAtContainer
    | OpenUsage
    | CloseUsage
    | ReleasePrecharge
    | SetConditions
    | VerifyGone
    | DeleteLeftovers
    | MarkDeleted
    | Wait
)
