"""A dedicated deployment: what the user asks (spec), what we observe (status), and its life cycle."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from engine.model.errors import IllegalTransition


class Phase(StrEnum):
    """Place in the life cycle; the documents call it `status`."""

    PROVISIONING = "provisioning"
    ACTIVE = "active"
    SCALING = "scaling"
    DEGRADED = "degraded"
    ASLEEP = "asleep"
    FAILED = "failed"
    TEARDOWN = "teardown"
    INACTIVE = "inactive"


P = Phase
TRANSITIONS: Mapping[Phase, frozenset[Phase]] = {
    P.PROVISIONING: frozenset({P.ACTIVE, P.DEGRADED, P.ASLEEP, P.FAILED, P.TEARDOWN}),
    P.ACTIVE: frozenset({P.SCALING, P.DEGRADED, P.ASLEEP, P.FAILED, P.TEARDOWN}),
    P.SCALING: frozenset({P.ACTIVE, P.DEGRADED, P.ASLEEP, P.FAILED, P.TEARDOWN}),
    P.DEGRADED: frozenset({P.ACTIVE, P.SCALING, P.FAILED, P.TEARDOWN}),
    P.ASLEEP: frozenset({P.PROVISIONING, P.SCALING, P.TEARDOWN}),
    P.FAILED: frozenset({P.PROVISIONING, P.SCALING, P.ACTIVE, P.DEGRADED, P.TEARDOWN}),
    P.TEARDOWN: frozenset({P.INACTIVE}),
    P.INACTIVE: frozenset(),
}


def advance(current: Phase, to: Phase) -> Phase:
    """The only way a phase changes.

    Raises:
        IllegalTransition: `to` may not follow `current`. Staying where one is is always legal.
    """
    if to is current or to in TRANSITIONS[current]:
        return to
    raise IllegalTransition(f"a deployment cannot go from {current} to {to}", current=current, to=to)


REPLACING_FIELDS = ("model_id", "gpu_type", "region", "preset", "reserved_gib", "vllm_args")
"""Edits of these need other machines: they raise `revision`, which is part of machines' names."""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Scaling(_Frozen):
    """Bounds of the replica count, and what the autoscaler aims at between them.

    Attributes:
        scale_to_zero: without traffic for `idle_timeout_seconds` nothing runs and nothing is billed; zero wins over
            `min_replicas` then.
        target_queue_depth: waiting requests per replica above which one is added; None: the installation's default.
        target_latency_ms: p95 of the time to the first token above which one is added; None: latency does not count.
    """

    min_replicas: int = Field(1, ge=0, le=64)
    max_replicas: int = Field(1, ge=1, le=64)
    scale_to_zero: bool = False
    idle_timeout_seconds: int = Field(300, ge=5)
    target_queue_depth: int | None = Field(None, ge=1, le=10_000)
    target_latency_ms: int | None = Field(None, ge=1, le=3_600_000)


class SlaTargets(_Frozen):
    """What the owner expects of a deployment; None: nothing.

    Attributes:
        ttft_target_ms: p95 of the time to the first token, at most.
        throughput_target_tps: tokens a second while there is work, at least.
        concurrency_limit: requests at replicas at the same time; more wait in the gateway.
    """

    ttft_target_ms: int | None = Field(None, ge=1, le=3_600_000)
    throughput_target_tps: float | None = Field(None, gt=0, le=10_000_000)
    concurrency_limit: int | None = Field(None, ge=1, le=100_000)


class DeploymentSpec(_Frozen):
    """What the user asked for. An edit makes a new one and raises the row's `generation`.

    Attributes:
        model_id: of the catalog, or `byom:NAME`: the organisation's own weights alone.
        reserved_gib: GPU memory that the catalog's model leaves to own weights beside it.
        vllm_args: its owner's own options of the model server, checked.
    """

    name: str
    model_id: str
    gpu_type: str
    region: str
    replicas: int = Field(1, ge=0, le=64)
    preset: str | None = None
    reserved_gib: float = Field(0.0, ge=0)
    vllm_args: tuple[str, ...] = ()
    scaling: Scaling = Scaling()


class Machine(_Frozen):
    """One machine a deployment is to have: its stack declares exactly those of the row's list.

    Attributes:
        name: `r{revision}-{number}`; a number is given out once in a deployment's life.
        revision: of the spec it was made for; the fields after it are that spec's.
        decided_at: when it was decided on.
        begun_at: when the operation that made it began: its billing starts there.
        exists_since: when that operation ended; None: it is still to be made.
        draining_since: since then it gets no new requests, and goes once it has none left.
        wanted_since: when it was taken back from draining the last time.
        drain_left: seconds it may drain for, after drains it was taken back from; None: the whole limit.
        replaces: the dead machine it was made for; "" where there is none.
    """

    name: str
    revision: int
    model_id: str
    gpu_type: str
    region: str
    preset: str | None = None
    reserved_gib: float = 0.0
    vllm_args: tuple[str, ...] = ()
    decided_at: datetime
    begun_at: datetime | None = None
    exists_since: datetime | None = None
    draining_since: datetime | None = None
    wanted_since: datetime | None = None
    drain_left: float | None = None
    replaces: str = ""

    @property
    def number(self) -> int:
        """The number in its name."""
        return int(self.name.rpartition("-")[2])

    def suits(self, spec: DeploymentSpec) -> bool:
        """Whether it was made for what the spec asks now."""
        return all(getattr(self, name) == getattr(spec, name) for name in REPLACING_FIELDS)


def new_machine(spec: DeploymentSpec, *, revision: int, number: int, now: datetime, replaces: str = "") -> Machine:
    """A machine for the spec that is still to be made."""
    made_for = {name: getattr(spec, name) for name in REPLACING_FIELDS}
    return Machine(name=f"r{revision}-{number}", revision=revision, decided_at=now, replaces=replaces, **made_for)


class MachineFailure(StrEnum):
    """Why there is no machine."""

    NO_CAPACITY = "no_capacity"  # the cloud has none at the moment
    REFUSED = "refused"  # the cloud makes none for another reason, again and again
    DIED = "died"  # it was there
    NOT_READY = "not_ready"  # it was there for the boot timeout, and never served


class MachineFailures(_Frozen):
    """Machines that could not be had, or had to be replaced, in a row: what pauses between attempts follow from.

    Attributes:
        generation: of the spec they were for; an edit forgets them.
        until: nothing more is made before then.
    """

    generation: int
    count: int
    reason: str
    cause: MachineFailure
    last_at: datetime
    until: datetime


class ReplicaPhase(StrEnum):
    """Place of one replica in its life: declared by a stack output, then measured by health checks."""

    BOOTING = "booting"
    READY = "ready"
    UNHEALTHY = "unhealthy"
    DRAINING = "draining"  # about to go: gets no new requests, ends those it has


class Replica(_Frozen):
    """One running copy as last observed.

    Attributes:
        id: the cloud's id (a Droplet id).
        name: stable name within the deployment, `r1-0`.
        address: IP address the gateway reaches it at.
        endpoint: base URL of its agent, `https://address:8443`.
        checked_at: when its health was last measured.
        failed_checks: how many measurements in a row failed.
        reason: why it is not ready, in the words of whoever said so.
        in_flight: requests its agent had when it was last asked.
        models: own weights (BYOM) it serves, by name, beside what it was made for.
    """

    id: str
    name: str
    address: str
    endpoint: str
    phase: ReplicaPhase = ReplicaPhase.BOOTING
    checked_at: datetime | None = None
    unhealthy_since: datetime | None = None
    failed_checks: int = 0
    reason: str = ""
    in_flight: int = 0
    models: tuple[str, ...] = ()


class Condition(_Frozen):
    """A named fact about a deployment with its reason, so that the API can say why nothing moves."""

    type: str
    status: bool
    reason: str
    message: str = ""
    until: datetime | None = None
    changed_at: datetime


class UpdateKind(StrEnum):
    """The Pulumi operations the control plane starts."""

    UP = "up"
    REFRESH = "refresh"
    DESTROY = "destroy"


class UpdateState(StrEnum):
    """Place of one stack operation in its life."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"

    @property
    def is_terminal(self) -> bool:
        return self in (UpdateState.SUCCEEDED, UpdateState.FAILED)
