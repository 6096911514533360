"""What is known about one handler deployment at one moment, and what can be done about it. Values only: no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from engine.model.deployment import Condition, UpdateKind
from engine.model.handler import ColdStart, HandlerPhase, HandlerSpec, Refusal, StartFailures, Worker, WorkerPhase
from engine.reconcilers.deployments.snapshot import (
    RESOURCES_PRESENT,
    STACK_UPDATED,
    DeleteLeftovers,
    MarkDeleted,
    Observed,
    SetConditions,
    UpdateView,
    VerifyGone,
    Wait,
)

WORKERS_READY = "WorkersReady"
CAPACITY_AVAILABLE = "CapacityAvailable"
CONDITION_TYPES = (STACK_UPDATED, WORKERS_READY, CAPACITY_AVAILABLE, RESOURCES_PRESENT)

LIVE = (WorkerPhase.CREATING, WorkerPhase.BOOTING, WorkerPhase.READY)
"""Phases of workers that take jobs, or are about to."""


@dataclass(frozen=True)
class Place:
    """Where a worker can be put.

    Attributes:
        free: how many more go there; None: as many as the cloud gives.
        devices: GPUs there that nobody has; empty where a worker gets none of its own.
        why_not: why nothing can be put there at the moment, as far as it is known before trying; "" while it can.
    """

    pool: str
    target: str
    host: str = ""
    region: str = ""
    size: str = ""
    machine_image: str = ""
    free: int | None = None
    devices: tuple[str, ...] = ()
    why_not: str = ""

    @property
    def name(self) -> str:
        """As conditions name it."""
        return f"{self.pool} on {self.host or f'{self.target} {self.region}'.strip()}"

    def is_of(self, refusal: Refusal) -> bool:
        """Whether the refusal speaks of this place."""
        return (self.pool, self.target, self.host, self.region) == (
            refusal.pool, refusal.target, refusal.host, refusal.region,
        )  # fmt: skip


@dataclass(frozen=True)
class Queue:
    """What waits and runs.

    Attributes:
        running_by_worker: worker → jobs it has.
        longest_by_worker: worker → how long a job it has may take: a job may be given more time than its deployment.
    """

    queued: int = 0
    running: int = 0
    oldest_queued_at: datetime | None = None
    last_job_at: datetime | None = None
    running_by_worker: Mapping[str, int] = field(default_factory=dict)
    longest_by_worker: Mapping[str, timedelta] = field(default_factory=dict)


@dataclass(frozen=True)
class Activity:
    """What the dispatcher says of one worker; see `store.handler_tables.WorkerActivityRow`."""

    ready_at: datetime | None = None
    idle_since: datetime | None = None
    in_flight: int = 0
    drained_at: datetime | None = None
    opened_at: datetime | None = None


@dataclass(frozen=True)
class Snapshot:
    """One handler deployment, read in one transaction.

    Attributes:
        suspended_reason: why it runs nothing; "" while it is not suspended.
        revision: of `workers` and `prepared_hosts`, as the stack has to follow them; update rows' generation.
        places: everywhere its pools can be had, in order of preference.
        checked: worker → when its process was last looked at; ended: those found not to run, in its log's last words.
        silent: those nobody could say anything of → since when.
        failures: operations that failed in a row, of the same kind and revision as the last one.
    """

    handler_id: str
    spec: HandlerSpec
    generation: int
    phase: HandlerPhase
    created_at: datetime
    phase_reason: str = ""
    observed_generation: int = 0
    suspended_reason: str = ""
    delete_requested_at: datetime | None = None
    workers: tuple[Worker, ...] = ()
    workers_made: int = 0
    revision: int = 0
    prepared_hosts: tuple[str, ...] = ()
    start_failures: StartFailures | None = None
    refusals: tuple[Refusal, ...] = ()
    cold_starts: tuple[ColdStart, ...] = ()
    conditions: tuple[Condition, ...] = ()
    queue: Queue = field(default_factory=Queue)
    activity: Mapping[str, Activity] = field(default_factory=dict)
    places: tuple[Place, ...] = ()
    checked: Mapping[str, datetime] = field(default_factory=dict)
    ended: Mapping[str, str] = field(default_factory=dict)
    silent: Mapping[str, datetime] = field(default_factory=dict)
    open_update: UpdateView | None = None
    last_update: UpdateView | None = None
    last_up: UpdateView | None = None
    last_refresh: UpdateView | None = None
    last_destroy: UpdateView | None = None
    failures: int = 0

    def condition(self, type_: str) -> Condition | None:
        """The condition of that type, if it was ever set."""
        return next((c for c in self.conditions if c.type == type_), None)

    @property
    def realised_revision(self) -> int:
        """The revision its stack was last brought to; an operation uses the newest one it finds. 0: none yet."""
        if self.last_up is None:
            return 0
        return min(self.revision, max(self.last_up.generation, self.last_up.outputs.generation))

    def verify_integrity(self) -> list[str]:
        """What can never be true, found; [] when all is well."""
        names = [w.name for w in self.workers]
        devices = [(w.host, device) for w in self.workers for device in w.devices]
        live = [w for w in self.workers if w.phase in LIVE]
        current = [w for w in live if w.generation == self.generation]
        gone = self.phase is HandlerPhase.INACTIVE
        rules = {
            "two workers have the same name": len(names) != len(set(names)),
            "a name was used that was not given out": any(int(n[1:]) >= self.workers_made for n in names),
            "two workers have the same GPU": len(devices) != len(set(devices)),
            "more workers than an edit's replacement allows": len(current) > self.spec.workers_max
            and self.observed_generation == self.generation,
            "a worker is on a host that is not prepared": any(
                w.host and w.host not in self.prepared_hosts for w in self.workers
            ),
            "gone, but an operation is open": gone and self.open_update is not None,
            "gone, but has workers": gone and bool(names),
            "torn down although nobody asked": self.phase in (HandlerPhase.TEARDOWN, HandlerPhase.INACTIVE)
            and self.delete_requested_at is None,
            "observed a generation that does not exist": self.observed_generation > self.generation,
            "its stack is ahead of its workers": self.last_up is not None and self.last_up.generation > self.revision,
        }
        return [rule for rule, broken in rules.items() if broken]


@dataclass(frozen=True)
class HandlerPolicy:
    """Numbers decisions are made with.

    Attributes:
        boot_timeout: a worker that gave no sign by then counts as one that ended.
        crashes_allowed: workers that end in a row before they were ready for `steady_after`, until an edit.
        drain_grace: how long past its job's time limit a draining worker is waited for.
        undispatched_grace: how long the dispatcher gets to say that a draining worker which never worked is drained.
        refused_for: how long a place is passed over that refused.
        silence_allowed: a ready worker whose host or agent says nothing for longer counts as ended; one that has jobs
            after `busy_silence_allowed`.
        check_booting, check_running: how often processes are looked at.
        failed_after: failed operations in a row that show in the phase.
    """

    boot_timeout: timedelta = timedelta(seconds=1200)
    crashes_allowed: int = 3
    steady_after: timedelta = timedelta(seconds=10)
    drain_grace: timedelta = timedelta(seconds=30)
    undispatched_grace: timedelta = timedelta(seconds=2)
    refused_for: timedelta = timedelta(seconds=60)
    silence_allowed: timedelta = timedelta(seconds=60)
    busy_silence_allowed: timedelta = timedelta(seconds=300)
    check_booting: timedelta = timedelta(seconds=0.5)
    check_running: timedelta = timedelta(seconds=5)
    failed_after: int = 5
    first_backoff: timedelta = timedelta(seconds=1)
    longest_backoff: timedelta = timedelta(seconds=120)
    verify_every: timedelta = timedelta(seconds=1)
    longest_verify: timedelta = timedelta(seconds=60)
    leftovers_after: timedelta = timedelta(seconds=5)

    def backoff(self, failures: int) -> timedelta:
        """How long to wait after so many failures in a row (≥ 1)."""
        doublings = min(max(failures, 1) - 1, 20)
        return min(self.longest_backoff, self.first_backoff * (1 << doublings))

    def verify_pause(self, age: timedelta) -> timedelta:
        """How long to wait after asking `age` after the destroy: as long again, so that pauses double."""
        return min(self.longest_verify, max(self.verify_every, age))


@dataclass(frozen=True)
class StartUpdate:
    """Ask the controller for a stack operation."""

    update_id: str
    kind: UpdateKind
    revision: int


@dataclass(frozen=True)
class SetPhase:
    """Move along the life cycle."""

    phase: HandlerPhase
    reason: str = ""


@dataclass(frozen=True)
class RecordWorkers:
    """These workers are to exist, as far as anybody knows them; all that follows from them.

    Attributes:
        revision: raised where the stack has to follow.
        placed: those whose places were free in the snapshot and must be still.
        forgotten: those that are gone: what the dispatcher wrote of them goes too.
    """

    workers: tuple[Worker, ...]
    workers_made: int
    revision: int
    prepared_hosts: tuple[str, ...]
    start_failures: StartFailures | None
    refusals: tuple[Refusal, ...]
    cold_starts: tuple[ColdStart, ...]
    placed: tuple[Worker, ...] = ()
    forgotten: tuple[str, ...] = ()


@dataclass(frozen=True)
class CheckWorkers:
    """Look at the processes of these workers; what is found is in the next snapshot."""

    names: tuple[str, ...]


Action = (
    StartUpdate
    | SetPhase
    | Observed
    | RecordWorkers
    | CheckWorkers
    | SetConditions
    | VerifyGone
    | DeleteLeftovers
    | MarkDeleted
    | Wait
)
