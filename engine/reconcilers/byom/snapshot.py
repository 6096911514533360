"""What is known of own weights at one moment, and what may be done about it. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from engine.byom.memory import Shape
from engine.model.byom import Phase

READY = "ready"
FAILED = "failed"
WAITING = "waiting"


@dataclass(frozen=True)
class Place:
    """How far a model is on one machine, as it is written down.

    Attributes:
        state: the agent's word, or `waiting`.
        attempts: how often it failed there since it last worked.
        counted: the agent's own count at the last failure that was counted.
        retry_at: it is sent again then, not before.
    """

    state: str = WAITING
    reason: str = ""
    attempts: int = 0
    counted: int = 0
    retry_at: datetime | None = None

    def to_json(self) -> dict[str, Any]:
        until = self.retry_at.isoformat() if self.retry_at else None
        return {"state": self.state, "reason": self.reason, "attempts": self.attempts, "counted": self.counted,
                "retry_at": until}  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Place:
        until = datetime.fromisoformat(data["retry_at"]) if data["retry_at"] else None
        return cls(data["state"], data["reason"], data["attempts"], data["counted"], until)


@dataclass(frozen=True)
class AgentModel:
    """A model as an agent tells of it."""

    name: str
    state: str
    reason: str
    sha256: str
    context_tokens: int
    attempts: int
    fetched_bytes: int = 0


@dataclass(frozen=True)
class Look:
    """What an agent said.

    Attributes:
        room_gib: GPU memory its machine was made to leave to own weights.
    """

    models: Mapping[str, AgentModel]
    room_gib: float


@dataclass(frozen=True)
class ReplicaView:
    """One machine of a deployment.

    Attributes:
        is_ready: it serves its deployment.
        routed: own weights that requests are sent to it for, as of its last health check.
        look: what its agent said just now; None: nothing.
    """

    name: str
    endpoint: str
    is_ready: bool
    is_draining: bool
    routed: frozenset[str] = frozenset()
    look: Look | None = None


@dataclass(frozen=True)
class ModelView:
    """One model that a deployment serves, is to serve or served.

    Attributes:
        context_tokens: it is served with; 0: as long as the machine has room for.
        need_gib: memory that is given to it.
        shape: what memory is computed from; None before its header was read.
        is_base: the deployment is made of it; it belongs to the organisation.
        places: replica → how far it is there.
    """

    id: str
    name: str
    phase: Phase
    reason: str
    sha256: str
    size_bytes: int
    context_tokens: int
    need_gib: float
    shape: Shape | None
    is_base: bool = False
    places: Mapping[str, Place] = field(default_factory=dict)

    @property
    def is_wanted(self) -> bool:
        return self.phase in (Phase.DISTRIBUTING, Phase.READY) and self.shape is not None


@dataclass(frozen=True)
class Snapshot:
    """One deployment with its own weights, oldest first.

    Attributes:
        is_leaving: it is being torn down, or gone.
    """

    deployment_id: str
    is_leaving: bool
    replicas: tuple[ReplicaView, ...]
    models: tuple[ModelView, ...]


@dataclass(frozen=True)
class UploadView:
    """One model before machines have to do with it.

    Attributes:
        upload_is_open: parts are still waited for.
        object_is_whole: all of its bytes are here, and committed.
        is_kept_elsewhere: a deployment's reconciling looks after its end.
    """

    id: str
    phase: Phase
    upload_is_open: bool
    object_is_whole: bool
    is_kept_elsewhere: bool


@dataclass(frozen=True)
class Put:
    """Have a machine serve a model."""

    replica: str
    model_id: str
    context_tokens: int


@dataclass(frozen=True)
class Drop:
    """Have a machine end a model."""

    replica: str
    name: str


@dataclass(frozen=True)
class SetPhase:
    """Move a model, or say anew why it is where it is."""

    model_id: str
    phase: Phase
    reason: str = ""


@dataclass(frozen=True)
class SetPlaces:
    """Write down how far a model is on this deployment's machines."""

    model_id: str
    places: Mapping[str, Place]


@dataclass(frozen=True)
class Validate:
    """Read the whole file: checksum, header, memory."""

    model_id: str


@dataclass(frozen=True)
class Remove:
    """Remove a model's bytes; it is gone then."""

    model_id: str


@dataclass(frozen=True)
class RemoveBytes:
    """Remove the bytes of a model that failed before it was of any use."""

    model_id: str


Action = Put | Drop | SetPhase | SetPlaces | Validate | Remove | RemoveBytes
