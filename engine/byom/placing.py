"""Whether own weights have room on a deployment's GPUs, and what that asks of the deployment. Moves no bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlmodel import Session

from engine.byom.gguf import printable
from engine.byom.memory import BESIDE_CONTEXT_TOKENS, Shape, context_in, does_not_fit, need_gib
from engine.model.byom import HOLDS_ITS_NAME, Phase, own_name
from engine.model.clock import Clock
from engine.model.deployment import DeploymentSpec
from engine.model.errors import Conflict, InvalidSpec, NotFound
from engine.store import byom, deployments
from engine.store.byom_tables import ByomModelRow
from engine.store.tables import DeploymentRow

Rooms = Callable[[DeploymentSpec], float]
"""GiB of GPU memory that own weights may have on each machine of a deployment."""


@dataclass(frozen=True)
class Fit:
    """Where a model fits.

    Attributes:
        context_tokens: it is served with; 0: whatever the machine of its own has room for.
    """

    context_tokens: int
    need_gib: float


@dataclass(frozen=True)
class Placement:
    """A deployment of own weights alone.

    Attributes:
        model_id: `byom:NAME`, checked.
    """

    model_id: str
    need_gib: float


def shape_of(row: ByomModelRow) -> Shape:
    """What a model's memory is computed from; its header was read."""
    h = row.header
    return Shape(int(h["weights_bytes"]), int(h["kv_bytes_per_token"]), int(h["context_tokens"]))


def target(session: Session, org_id: str, deployment_id: str) -> DeploymentRow:
    """The deployment a model is brought to.

    Raises:
        NotFound: the organisation has none of that id.
        Conflict: it is gone, or about to go.
    """
    row = deployments.owned(session, deployment_id, org_id)
    if row.delete_requested_at is not None or row.deleted_at is not None:
        raise Conflict(f"deployment {deployment_id} is being torn down: nothing can be brought to it",
                       status=row.phase)  # fmt: skip
    return row


def room_left(session: Session, row: DeploymentRow, rooms: Rooms, *, beside: str | None = None) -> float:
    """GiB that a further model may have on a deployment.

    Args:
        beside: a model that does not count: the one that is placed.
    """
    spec = deployments.spec_of(row)
    others = [m for m in byom.of_deployment(session, row.id) if m.id != beside and m.phase in HOLDS_ITS_NAME]
    taken = sum(other.need_gib for other in others)
    if (base := base_of(session, row.org_id, spec)) is not None:
        shape = shape_of(base)
        taken += need_gib(shape, shape.least_context)
    return rooms(spec) - taken


def base_of(session: Session, org_id: str, spec: DeploymentSpec) -> ByomModelRow | None:
    """The model that a deployment is made of, where that is own weights."""
    name = own_name(spec.model_id)
    return byom.holding(session, org_id, name) if name is not None else None


def require_free(session: Session, row: DeploymentRow, name: str) -> None:
    """Refuse a name that the deployment's own model has.

    Raises:
        Conflict: it has.
    """
    if own_name(deployments.spec_of(row).model_id) == name:
        raise Conflict(f"deployment {row.id} is itself made of the model {name!r}: choose another name", name=name)


def place(
    session: Session, row: DeploymentRow, shape: Shape, rooms: Rooms, clock: Clock, *, model_id: str | None = None
) -> Fit:
    """Give a model its memory on a deployment; more than the deployment left so far makes new machines, one by one.

    Behind `orgs.locked`: two at once must not be given the same room.

    Raises:
        InvalidSpec: it does not fit; names need and room.
        Conflict: the deployment was edited at this moment.
    """
    spec = deployments.spec_of(row)
    room = room_left(session, row, rooms, beside=model_id)
    where = f"deployment {row.id} ({spec.model_id} on {spec.gpu_type})"
    least = shape.least_context
    if (need := need_gib(shape, least)) > room:
        raise does_not_fit(need, room, least, where)
    context = context_in(shape, room, BESIDE_CONTEXT_TOKENS)
    fit = Fit(context, need_gib(shape, context))
    if own_name(spec.model_id) is None:
        _reserve(session, row, spec, rooms(spec) - room + fit.need_gib, clock)
    return fit


def _reserve(session: Session, row: DeploymentRow, spec: DeploymentSpec, wanted: float, clock: Clock) -> None:
    """Never lowered: the next version of a model then needs no new machines."""
    wanted = round(wanted, 2)  # needs are hundredths, rounded up
    if wanted <= spec.reserved_gib:
        return
    edited = spec.model_copy(update={"reserved_gib": wanted})
    if deployments.update_spec(session, row.id, edited, generation=row.generation, now=clock.now()) is None:
        raise Conflict(f"deployment {row.id} was edited at this moment: send it again")


def byom_placement(session: Session, org_id: str, model_id: str, *, gpu_type: str, room_gib: float) -> Placement:
    """A deployment that is made of own weights alone: the organisation's model `byom:NAME` on a whole machine.

    Args:
        room_gib: what a machine of `gpu_type` has for them.

    Raises:
        NotFound: the organisation has no such model (one that was uploaded for a deployment is that deployment's).
        Conflict: its upload or its check is not over.
        InvalidSpec: it does not fit; names need and room.
    """
    name = own_name(model_id)
    if name is None:
        raise InvalidSpec(f"model_id {model_id!r} names no own weights: they are `byom:NAME`", field="model_id")
    row = byom.holding(session, org_id, name)
    if row is None:
        raise NotFound(
            f"the organisation has no model {name!r}: upload it without a deployment_id first "
            "(`POST /api/v1/public/models/upload`), then create the deployment",
            field="model_id",
        )
    if row.phase in (Phase.UPLOADING, Phase.VALIDATING):
        raise Conflict(f"model {name!r} ({row.id}) is {row.phase}: wait until it is ready", status=row.phase)
    shape = shape_of(row)
    if (need := need_gib(shape, shape.least_context)) > room_gib:
        raise does_not_fit(need, room_gib, shape.least_context, f"a machine with {gpu_type}")
    return Placement(model_id, need)


def facts_of(header: Any) -> dict[str, Any]:
    """A header as the model's row keeps it."""
    return {
        "architecture": printable(header.architecture), "name": printable(header.name[:256]),
        "version": header.version,
        "layers": header.layers, "context_tokens": header.context_tokens, "embedding_length": header.embedding_length,
        "heads": header.heads, "kv_heads": max(header.kv_heads, default=0), "vocabulary": header.vocabulary,
        "file_type": header.file_type, "tensors": header.tensors, "tensor_types": dict(header.tensor_types),
        "weights_bytes": header.weights_bytes, "kv_bytes_per_token": header.kv_bytes_per_token,
    }  # fmt: skip
