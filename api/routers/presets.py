"""`/deployments/{id}/preset`: hardware and vLLM settings under one name, as one edit. Machines are the reconciler's."""

from __future__ import annotations

from fastapi import APIRouter

from api.deps import CallerArg, DepsArg
from api.funding import require_an_hour
from api.routers.deployments import require_placeable
from api.schemas.deployments import DeploymentView, PresetChange, deployment_view, status_of
from engine.model.deployment import DeploymentSpec
from engine.model.errors import Conflict
from engine.store import deployments
from engine.store.deployments import owned
from stacks import catalog
from stacks.vllm_options import check_for_users

router = APIRouter(prefix="/deployments/{deployment_id}/preset", tags=["presets"])

_ATTEMPTS = 5  # of an edit that raced with another edit of the same deployment


@router.patch("", summary="Apply an inference preset; machines are replaced one after the other, without a pause")
def patch_preset(deployment_id: str, body: PresetChange, caller: CallerArg, deps: DepsArg) -> DeploymentView:
    """New machines serve before old ones are drained; without capacity the old ones stay, and `conditions` says so.

    `serving.note` says what is not as the preset prefers it: a model that does not fit in 16 bits runs in 8.
    """
    for _ in range(_ATTEMPTS):
        with deps.database.write() as session:
            row = owned(session, deployment_id, caller.org_id)
            if row.delete_requested_at is not None:
                status = status_of(row).value
                raise Conflict(f"deployment {deployment_id} is {status}: no preset can be applied", status=status)
            spec = deployments.spec_of(row)
            edited = require_placeable(with_preset(spec, body))
            if edited == spec:
                return deployment_view(row, deps.public_url)
            now = deps.clock.now()
            wakes = row.asleep_since is not None and not edited.scaling.scale_to_zero
            runs = deployments.running_spec_of(row).replicas > 0
            if wakes or (runs and catalog.hourly_usd(edited.gpu_type) > catalog.hourly_usd(spec.gpu_type)):
                require_an_hour(session, caller, edited.gpu_type, edited.replicas, now, deployment_id=row.id)
            if deployments.update_spec(session, row.id, edited, generation=row.generation, now=now):
                if wakes:
                    deployments.wake(session, row.id, now)
                return deployment_view(owned(session, deployment_id, caller.org_id), deps.public_url)
    raise Conflict("the deployment is being edited by others right now; try again", status=status_of(row).value)


def with_preset(spec: DeploymentSpec, change: PresetChange) -> DeploymentSpec:
    """The specification under another preset. Scaling to zero comes and goes with the preset that brings it.

    Raises:
        InvalidSpec: there is no such preset, or an option cannot be.
    """
    new = catalog.preset_named(change.preset) if change.preset is not None else None
    old = catalog.PRESETS.get(spec.preset or "")
    edited: dict[str, object] = {"preset": change.preset}
    if new is not None:
        edited["gpu_type"] = new.gpu_type
    brings, brought = new is not None and new.scale_to_zero, old is not None and old.scale_to_zero
    if brings != brought:
        edited["scaling"] = spec.scaling.model_copy(update={"scale_to_zero": brings})
    if change.vllm_args is not None:
        edited["vllm_args"] = check_for_users(change.vllm_args)
    return spec.model_copy(update=edited)
