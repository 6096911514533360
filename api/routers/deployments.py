"""`/deployments`: create, list, get, delete. Only the specification is written here; the reconciler does the work."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Annotated

from fastapi import APIRouter, Header, Query

from api.deps import CallerArg, Deps, DepsArg
from api.funding import require_an_hour
from api.schemas.deployments import (
    DeploymentCreate,
    DeploymentPage,
    DeploymentView,
    GpuModelConfig,
    GpuModelConfigs,
    ScalingBounds,
    deployment_view,
)
from engine.byom.placing import byom_placement
from engine.identity.grants import require_still
from engine.identity.worker_identity import new_worker_identity
from engine.model.access import Permission, Principal
from engine.model.byom import own_name
from engine.model.deployment import DeploymentSpec, Scaling
from engine.model.errors import Conflict, InvalidSpec, NotFound
from engine.model.tiers import Feature, Tier, require
from engine.store import deployments, orgs
from engine.store.deployments import owned
from engine.store.tables import DeploymentRow
from stacks import catalog
from stacks.byom_room import own_gpu, room_gib
from stacks.vllm_options import check_for_users

router = APIRouter(tags=["deployments"])

_ID_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


@router.post("/deployments", status_code=201, summary="Create a deployment")
def create_deployment(
    body: DeploymentCreate,
    caller: CallerArg,
    deps: DepsArg,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> DeploymentView:
    """Accept a deployment. It serves once `status` is `active`. A `preset` brings its hardware.

    With an `Idempotency-Key` a repeated request answers with the deployment the first one made.
    """
    with deps.database.read() as session:
        require(Tier(orgs.one(session, caller.org_id).tier), Feature.DEDICATED_INSTANCES)
    body = body.model_copy(update={"gpu_type": gpu_type_of(body)})
    spec = require_placeable(spec_asked_for(body))
    new_id = _id_for(idempotency_key, caller.org_id) if idempotency_key else deps.new_id("dep")
    digest = _digest(body) if idempotency_key else None
    row = _new_row(deps, new_id, caller, spec, digest)
    with deps.database.write() as session:
        orgs.locked(session, caller.org_id)  # of two requests with one key the second has to see the first's row
        if deployments.get(session, row.id) is None:  # a repeated request starts nothing new
            require_still(session, caller, row.created_at)
            if own_name(spec.model_id) is not None:
                byom_placement(session, caller.org_id, spec.model_id, gpu_type=spec.gpu_type, room_gib=room_gib(spec))
            require_an_hour(session, caller, spec.gpu_type, spec.replicas, row.created_at)
        row = deployments.insert_once(session, row)
    if row.request_digest != digest:
        raise Conflict("this Idempotency-Key was used for a different request", deployment_id=new_id)
    return deployment_view(row, deps.public_url)


def gpu_type_of(body: DeploymentCreate) -> str:
    """What was asked for, or what the preset runs on.

    Raises:
        InvalidSpec: neither was given, or there is no such preset.
    """
    if body.gpu_type is not None:
        return body.gpu_type
    if body.preset is None:
        raise InvalidSpec(
            f"gpu_type is missing: give one of {', '.join(catalog.GPU_TYPES)}, or a preset", field="gpu_type",
            valid=list(catalog.GPU_TYPES),
        )  # fmt: skip
    return catalog.preset_named(body.preset).gpu_type


def spec_asked_for(body: DeploymentCreate) -> DeploymentSpec:
    """The specification of a new deployment; its hardware is known.

    Raises:
        InvalidSpec: the bounds contradict each other or the replicas.
    """
    bounds = body.scaling or ScalingBounds(min_replicas=body.replicas)
    replicas = body.replicas if "replicas" in body.model_fields_set else max(1, bounds.min_replicas)
    high = bounds.max_replicas or max(replicas, bounds.min_replicas)
    if not bounds.min_replicas <= replicas <= high:
        raise InvalidSpec(
            f"replicas ({replicas}) is outside of min_replicas ({bounds.min_replicas}) to max_replicas ({high})",
            field="replicas", min_replicas=bounds.min_replicas, max_replicas=high,
        )  # fmt: skip
    sleeps = bounds.scale_to_zero
    if sleeps is None:
        sleeps = body.preset is not None and catalog.preset_named(body.preset).scale_to_zero
    edited = {"max_replicas": high, "scale_to_zero": sleeps}
    return DeploymentSpec(
        name=body.name, model_id=body.model_id, gpu_type=gpu_type_of(body), region=body.region, replicas=replicas,
        preset=body.preset, vllm_args=check_for_users(body.vllm_args),
        scaling=Scaling.model_validate(bounds.model_dump() | edited),
    )  # fmt: skip


def require_placeable(spec: DeploymentSpec) -> DeploymentSpec:
    """The specification, if its model fits its hardware; own weights are looked at by `byom_placement`.

    Raises:
        InvalidSpec: the catalog knows no such model, hardware, region, preset or option, or it does not fit; names
            what would.
    """
    if own_name(spec.model_id) is not None:
        own_gpu(spec.gpu_type, spec.region)
        if given := "preset" if spec.preset else "vllm_args" if spec.vllm_args else "":
            raise InvalidSpec(f"{given} is for vLLM; own weights are served by llama.cpp: leave it out", field=given)
        return spec
    catalog.choose(
        spec.model_id, spec.gpu_type, spec.region, spec.preset, reserved_gib=spec.reserved_gib,
        vllm_args=spec.vllm_args,
    )  # fmt: skip
    return spec


@router.get("/deployments", summary="List your deployments, newest first")
def list_deployments(
    caller: CallerArg,
    deps: DepsArg,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: str | None = None,
    include_inactive: bool = False,
) -> DeploymentPage:
    only = None if caller.grants is None else [i for i in caller.grants if caller.may(Permission.DEPLOYMENT_READ, i)]
    with deps.database.read() as session:
        rows = deployments.list_for_org(
            session, caller.org_id, limit=limit + 1, after=after, deleted=include_inactive, only=only
        )
    return DeploymentPage(
        data=[deployment_view(row, deps.public_url) for row in rows[:limit]], has_more=len(rows) > limit
    )


@router.get("/deployments/{deployment_id}", summary="Get a deployment and its status")
def get_deployment(deployment_id: str, caller: CallerArg, deps: DepsArg) -> DeploymentView:
    with deps.database.read() as session:
        return deployment_view(owned(session, deployment_id, caller.org_id), deps.public_url)


@router.delete("/deployments/{deployment_id}", status_code=202, summary="Tear a deployment down; billing stops now")
def delete_deployment(deployment_id: str, caller: CallerArg, deps: DepsArg) -> DeploymentView:
    with deps.database.write() as session:
        owned(session, deployment_id, caller.org_id)
        row = deployments.request_delete(session, deployment_id, deps.clock.now())
    if row is None:
        raise NotFound(f"no deployment {deployment_id}")
    return deployment_view(row, deps.public_url)


@router.get("/gpu-model-configs", summary="Valid combinations of GPU and model")
def gpu_model_configs(caller: CallerArg) -> GpuModelConfigs:
    return GpuModelConfigs(data=[GpuModelConfig.model_validate(c) for c in catalog.gpu_model_configs()])


def _new_row(
    deps: Deps, deployment_id: str, caller: Principal, spec: DeploymentSpec, digest: str | None
) -> DeploymentRow:
    now = deps.clock.now()
    identity = new_worker_identity(deployment_id, now)
    return DeploymentRow(
        id=deployment_id, org_id=caller.org_id, name=spec.name, spec=spec.model_dump(mode="json"), created_at=now,
        updated_at=now, request_digest=digest, created_by=caller.user_id,
        created_with=caller.key_lineage or caller.key_id, worker_token_sealed=deps.sealer.seal(identity.token),
        worker_key_sealed=deps.sealer.seal(identity.private_key_pem),
        worker_certificate_pem=identity.certificate_pem, worker_fingerprint=identity.fingerprint,
    )  # fmt: skip


def _id_for(idempotency_key: str, org_id: str) -> str:
    """The id a key stands for: the same key of the same tenant can only ever name one deployment."""
    digest = hmac.new(org_id.encode(), idempotency_key.encode(), hashlib.sha256).digest()
    return "dep_" + "".join(_ID_ALPHABET[byte & 31] for byte in digest[:16])


def _digest(body: DeploymentCreate) -> str:
    """What was asked for, in few letters; a field left out and its default are the same request."""
    asked = body.model_dump(mode="json", exclude_defaults=True)
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
