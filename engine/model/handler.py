"""A handler deployment: an image whose workers execute jobs. What the user asks (spec) and what its workers are.

Jobs themselves are `job.py`; a dedicated model deployment is `deployment.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from engine.model.errors import IllegalTransition
from engine.model.storage import Mount

DEFAULT_PORT = 8000


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class HandlerSpec(_Frozen):
    """What the user asked for. An edit makes a new one and raises the row's `generation`.

    Attributes:
        slug: names the deployment in URLs, unique in its organisation.
        pools: GPU pool ids in order of preference; the first with capacity on any configured target wins.
        workers_min: kept running while idle; workers_max: never more at the same time, but for one that is made before
            the worker of an older generation that it replaces is drained.
        idle_timeout_seconds: how long a worker beyond `workers_min` stays without work.
        ports: the first is where `POST /run` is sent.
        env: plain environment; secret values are sealed in the row and never in a spec.
        start_command: replaces the image's command; empty: the image's own.
        execution_timeout_seconds: a job that runs longer is ended and `timed_out`.
        concurrency: how many jobs one HTTP worker gets at the same time; one of RunPod's protocol asks for them itself.
        queue_delay_seconds: a job has to have waited this long before a worker is added to ones that are ready.
        max_attempts: how often a job is begun, its first time included, when workers die under it.
        mounts: stored objects, by id, that workers find as files.
    """

    slug: str
    name: str
    image: str
    pools: tuple[str, ...]
    workers_min: int = Field(0, ge=0, le=64)
    workers_max: int = Field(3, ge=1, le=64)
    idle_timeout_seconds: int = Field(5, ge=1, le=86_400)
    ports: tuple[int, ...] = (DEFAULT_PORT,)
    env: dict[str, str] = Field(default_factory=dict)
    start_command: tuple[str, ...] = ()
    container_disk_gb: int = Field(20, ge=1, le=4096)
    execution_timeout_seconds: int = Field(600, ge=1, le=86_400)
    max_attempts: int = Field(3, ge=1, le=10)
    concurrency: int = Field(1, ge=1, le=1000)
    queue_delay_seconds: float = Field(1.0, ge=0, le=3600)
    mounts: tuple[Mount, ...] = ()

    @field_validator("mounts", mode="before")
    @classmethod
    def _without_names(cls, value: Any) -> Any:
        """Specs of early versions list bare names, which nothing ever mounted: they read as no mounts."""
        return [m for m in value if not isinstance(m, str)] if isinstance(value, list | tuple) else value


class HandlerPhase(StrEnum):
    """Place of a handler deployment in its life; documents call it `status`."""

    PROVISIONING = "provisioning"  # accepted; no worker was ever ready
    ACTIVE = "active"  # takes jobs and runs them, with or without workers at this moment
    SCALING = "scaling"  # its stack is being changed
    DEGRADED = "degraded"  # some wanted workers do not come up
    ASLEEP = "asleep"  # scaled to zero, or suspended: the next job wakes it unless it is suspended
    FAILED = "failed"  # with reason: the image cannot be pulled, crashes again and again, no capacity anywhere
    TEARDOWN = "teardown"
    INACTIVE = "inactive"


P = HandlerPhase
TRANSITIONS: Mapping[HandlerPhase, frozenset[HandlerPhase]] = MappingProxyType(
    {
        P.PROVISIONING: frozenset({P.ACTIVE, P.SCALING, P.ASLEEP, P.DEGRADED, P.FAILED, P.TEARDOWN}),
        P.ACTIVE: frozenset({P.SCALING, P.ASLEEP, P.DEGRADED, P.FAILED, P.TEARDOWN}),
        P.SCALING: frozenset({P.ACTIVE, P.ASLEEP, P.DEGRADED, P.FAILED, P.TEARDOWN}),
        P.DEGRADED: frozenset({P.ACTIVE, P.SCALING, P.ASLEEP, P.FAILED, P.TEARDOWN}),
        P.ASLEEP: frozenset({P.ACTIVE, P.SCALING, P.DEGRADED, P.FAILED, P.TEARDOWN}),
        P.FAILED: frozenset({P.PROVISIONING, P.ACTIVE, P.SCALING, P.ASLEEP, P.DEGRADED, P.TEARDOWN}),
        P.TEARDOWN: frozenset({P.INACTIVE}),
        P.INACTIVE: frozenset(),
    }
)


def advance(current: HandlerPhase, to: HandlerPhase) -> HandlerPhase:
    """The only way a handler deployment's phase changes.

    Raises:
        IllegalTransition: `to` may not follow `current`. Staying where one is is always legal.
    """
    if to is current or to in TRANSITIONS[current]:
        return to
    raise IllegalTransition(f"a handler deployment cannot go from {current} to {to}", current=current, to=to)


class WorkerPhase(StrEnum):
    """Place of one worker, as the control plane knows it."""

    CREATING = "creating"  # its machine or container is being made
    BOOTING = "booting"  # it exists; its handler has not answered yet
    READY = "ready"  # it took, or can take, a job
    DRAINING = "draining"  # gets no new job; removed once it has none
    EXITED = "exited"  # its process ended, or is being ended: its place is free once its container is gone


class Protocol(StrEnum):
    """How a worker takes its jobs: found out by its own behaviour."""

    HTTP = "http"  # answers POST /run on its port
    RUNPOD = "runpod"  # asks for jobs itself


class Worker(_Frozen):
    """One worker of a handler deployment, as the reconciler last recorded it.

    Attributes:
        name: stable and never used again within the deployment, `w7`; part of container and host names.
        pool: GPU pool it was placed in; target: `docker` or `digitalocean`; host: name of the Docker host, "" else.
        region, size, machine_image: of its Droplet; "" on a Docker host.
        endpoint: base URL jobs are sent to (`http://10.0.0.5:32801`, or its agent's `https://…`); "" while unknown.
        generation: of the spec it was made from; a worker of an older one is drained and replaced.
        devices: the GPUs it has to itself, as its host's driver names them; empty without, and for whole machines.
        reason: why it is not ready, in the words of whoever said so (its last log lines after an exit).
    """

    name: str
    pool: str
    target: str
    host: str = ""
    region: str = ""
    size: str = ""
    machine_image: str = ""
    endpoint: str = ""
    phase: WorkerPhase = WorkerPhase.CREATING
    generation: int = 1
    devices: tuple[str, ...] = ()
    created_at: datetime
    phase_since: datetime
    reason: str = ""


class StartFailures(_Frozen):
    """How often in a row a worker of one generation ended before it was ready; a ready one, or an edit, forgets them.

    Attributes:
        is_final: trying again cannot help (there is no such image): nothing is tried until an edit.
    """

    generation: int
    count: int
    reason: str
    last_at: datetime
    is_final: bool = False


class Refusal(_Frozen):
    """A place that refused a worker: it is passed over until `until`."""

    pool: str
    target: str
    host: str = ""
    region: str = ""
    why: str
    until: datetime


def is_in_stack(worker: Worker, refusals: Iterable[Refusal]) -> bool:
    """Whether the stack has a worker.

    One that ended leaves it; but not while its Docker host is passed over: nothing can be removed there, and trying
    would hold up everything else of the stack.
    """
    if worker.phase is not WorkerPhase.EXITED:
        return True
    return bool(worker.endpoint and worker.host) and any(r.host == worker.host for r in refusals)


class ColdStart(_Frozen):
    """How long a worker took from being wanted to its first answer, by phases, in milliseconds; None: not known yet.

    Attributes:
        queue_ms: from the job that had waited longest to the decision to start a worker.
        provision_ms: making its container or machine, pull included; pull_ms: fetching the image, within that.
        boot_ms: from the made container or machine to its first word: an open port that answers, a ping, an agent.
        handler_ms: from there to a handler that takes jobs: its models are loaded, on a machine its image is fetched.
        total_ms: from the job, or where none waited the decision, to a handler that takes jobs.
    """

    worker: str
    at: datetime
    queue_ms: int = 0
    provision_ms: int | None = None
    pull_ms: int | None = None
    boot_ms: int | None = None
    handler_ms: int | None = None
    total_ms: int | None = None
