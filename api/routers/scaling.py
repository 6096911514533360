"""`/deployments/{id}/scaling`: bounds of the replica count. A change of bounds scales by hand; no autoscaler yet."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import ValidationError

from api.deps import CallerArg, DepsArg
from api.funding import require_an_hour
from api.schemas.deployments import ScalingChange, ScalingView, ready_replicas, status_of
from engine.model.deployment import DeploymentSpec, Scaling
from engine.model.errors import Conflict, InvalidSpec
from engine.store import deployments
from engine.store.deployments import owned
from engine.store.tables import DeploymentRow

router = APIRouter(prefix="/deployments/{deployment_id}/scaling", tags=["scaling"])

_ATTEMPTS = 5  # of an edit that raced with another edit of the same deployment


@router.get("", summary="Get the scaling configuration")
def get_scaling(deployment_id: str, caller: CallerArg, deps: DepsArg) -> ScalingView:
    with deps.database.read() as session:
        return _view(owned(session, deployment_id, caller.org_id))


@router.patch("", summary="Change the bounds; the replica count moves into them")
def patch_scaling(deployment_id: str, body: ScalingChange, caller: CallerArg, deps: DepsArg) -> ScalingView:
    for _ in range(_ATTEMPTS):
        with deps.database.write() as session:
            row = owned(session, deployment_id, caller.org_id)
            if row.delete_requested_at is not None:
                status = status_of(row).value
                raise Conflict(f"deployment {deployment_id} is {status}: it cannot be scaled any more", status=status)
            spec = deployments.spec_of(row)
            edited = rescaled(spec, body)
            if edited == spec:
                return _view(row)
            now = deps.clock.now()
            if edited.replicas > spec.replicas:  # a suspended one comes back as a whole: what it has counts as new
                more = edited.replicas - (spec.replicas if row.suspended_at is None else 0)
                require_an_hour(session, caller, spec.gpu_type, more, now, deployment_id=row.id)
            if changed := deployments.update_spec(session, row.id, edited, generation=row.generation, now=now):
                return _view(changed)
    raise Conflict("the deployment is being edited by others right now; try again", status=status_of(row).value)


def rescaled(spec: DeploymentSpec, change: ScalingChange) -> DeploymentSpec:
    """The specification after a change of bounds: the asked or the present replica count, moved into them.

    Raises:
        InvalidSpec: the bounds contradict each other or the asked count.
    """
    asked = change.model_dump(exclude_none=True, exclude={"replicas"})
    try:
        scaling = Scaling.model_validate(spec.scaling.model_dump() | asked)
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


def _view(row: DeploymentRow) -> ScalingView:
    spec = deployments.spec_of(row)
    return ScalingView(**spec.scaling.model_dump(), replicas=spec.replicas, ready_replicas=ready_replicas(row))
