"""`/deployments/{id}/scaling`: what the autoscaler keeps to, and the replica count by hand. Decides nothing itself."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from fastapi import APIRouter
from pydantic import ValidationError
from sqlmodel import Session

from api.deps import CallerArg, DepsArg
from api.funding import require_an_hour
from api.schemas.deployments import ready_replicas, status_of
from api.schemas.scaling import ScalingChange, ScalingDecision, ScalingView
from engine.model.deployment import DeploymentSpec, Scaling
from engine.model.errors import Conflict, InsufficientCredit, InvalidSpec
from engine.store import autoscaling, deployments, traffic
from engine.store.deployments import owned
from engine.store.tables import DeploymentRow

router = APIRouter(prefix="/deployments/{deployment_id}/scaling", tags=["scaling"])

_ATTEMPTS = 5  # of an edit that raced with another edit of the same deployment
_TARGETS = ("target_queue_depth", "target_latency_ms")


@router.get("", summary="Get the scaling configuration and what the autoscaler last did")
def get_scaling(deployment_id: str, caller: CallerArg, deps: DepsArg) -> ScalingView:
    with deps.database.read() as session:
        return _view(session, owned(session, deployment_id, caller.org_id), deps.clock.now())


@router.patch("", summary="Change the bounds and targets; the replica count moves into the bounds")
def patch_scaling(deployment_id: str, body: ScalingChange, caller: CallerArg, deps: DepsArg) -> ScalingView:
    for _ in range(_ATTEMPTS):
        with deps.database.write() as session:
            row = owned(session, deployment_id, caller.org_id)
            if row.delete_requested_at is not None:
                status = status_of(row).value
                raise Conflict(f"deployment {deployment_id} is {status}: it cannot be scaled any more", status=status)
            now = deps.clock.now()
            wakes = wakes_it(row, body)
            spec = _as_woken(row) if wakes else deployments.spec_of(row)
            edited = rescaled(spec, body)
            more = edited.replicas if wakes else _replicas_to_pay(row, spec, edited)
            require_an_hour(session, caller, spec.gpu_type, more, now, deployment_id=row.id)
            if wakes:
                row = _woken(session, row, now)
            if edited == spec:
                return _view(session, row, now)
            if changed := deployments.update_spec(session, row.id, edited, generation=row.generation, now=now):
                return _view(session, changed, now)
    raise Conflict("the deployment is being edited by others right now; try again", status=status_of(row).value)


def wakes_it(row: DeploymentRow, change: ScalingChange) -> bool:
    """Whether a change asks a sleeping deployment to run: it may not sleep any more, or is given a replica count."""
    return row.asleep_since is not None and (change.scale_to_zero is False or change.replicas is not None)


def _as_woken(row: DeploymentRow) -> DeploymentSpec:
    """The specification `deployments.wake` will leave."""
    spec = deployments.spec_of(row)
    return spec.model_copy(update={"replicas": max(1, spec.scaling.min_replicas)})


def _woken(session: Session, row: DeploymentRow, now: datetime) -> DeploymentRow:
    if row.suspended_at is not None:
        raise InsufficientCredit(f"deployment {row.id} is suspended and cannot be woken: {row.suspended_reason}")
    deployments.wake(session, row.id, now)
    return owned(session, row.id, row.org_id)


def _replicas_to_pay(row: DeploymentRow, spec: DeploymentSpec, edited: DeploymentSpec) -> int:
    """How many replicas there has to be money for. A suspended deployment comes back as a whole: all of them."""
    if row.asleep_since is not None or edited.replicas <= spec.replicas:
        return 0
    return edited.replicas - (spec.replicas if row.suspended_at is None else 0)


def rescaled(spec: DeploymentSpec, change: ScalingChange) -> DeploymentSpec:
    """The specification after a change of bounds: the asked or the present replica count, moved into them.

    Raises:
        InvalidSpec: the bounds contradict each other or the asked count.
    """
    try:
        scaling = Scaling.model_validate(spec.scaling.model_dump() | _asked(change))
    except ValidationError as err:  # the request's own types have checked each field already
        raise InvalidSpec(str(err)) from err
    low, high = scaling.min_replicas, scaling.max_replicas
    if low > high:
        raise InvalidSpec(
            f"min_replicas ({low}) is larger than max_replicas ({high}): send both", field="min_replicas",
            min_replicas=low, max_replicas=high,
        )  # fmt: skip
    if change.replicas is not None and not low <= change.replicas <= high:
        raise InvalidSpec(
            f"replicas ({change.replicas}) is outside of min_replicas ({low}) to max_replicas ({high})",
            field="replicas", min_replicas=low, max_replicas=high,
        )  # fmt: skip
    replicas = max(low, min(high, change.replicas or spec.replicas))
    return spec.model_copy(update={"scaling": scaling, "replicas": replicas})


def _asked(change: ScalingChange) -> dict[str, Any]:
    """What a change sets: null is a value of the targets only."""
    given = change.model_dump(exclude_unset=True, exclude={"replicas"})
    return {name: value for name, value in given.items() if value is not None or name in _TARGETS}


def _view(session: Session, row: DeploymentRow, now: datetime) -> ScalingView:
    spec = deployments.spec_of(row)
    ready = ready_replicas(row)
    decided = autoscaling.memory_of(session, row.id)
    return ScalingView(
        **spec.scaling.model_dump(),
        replicas=spec.replicas,
        ready_replicas=ready,
        asleep_since=row.asleep_since,
        queue_depth=round(_waiting(session, row.id, now) / max(1, ready), 2),
        last_decision=ScalingDecision(reason=decided.reason, at=decided.scaled_at)
        if decided is not None and decided.scaled_at is not None
        else None,
    )


def _waiting(session: Session, deployment_id: str, now: datetime) -> int:
    """In front of the replicas, and in them."""
    asked = traffic.current(session, now, [deployment_id]).get(deployment_id, traffic.Traffic())
    return asked.waiting + sum(m.waiting or 0 for m in autoscaling.fresh_metrics(session, now, deployment_id))
