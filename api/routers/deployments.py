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
    deployment_view,
)
from engine.identity.grants import require_still
from engine.identity.worker_identity import new_worker_identity
from engine.model.access import Permission, Principal
from engine.model.deployment import DeploymentSpec, Scaling
from engine.model.errors import Conflict, NotFound
from engine.model.tiers import Feature, Tier, require
from engine.store import deployments, orgs
from engine.store.deployments import owned
from engine.store.tables import DeploymentRow
from stacks import catalog

router = APIRouter(tags=["deployments"])

_ID_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


@router.post("/deployments", status_code=201, summary="Create a deployment")
def create_deployment(
    body: DeploymentCreate,
    caller: CallerArg,
    deps: DepsArg,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> DeploymentView:
    """Accept a deployment. It serves once `status` is `active`.

    With an `Idempotency-Key` a repeated request answers with the deployment the first one made.
    """
    with deps.database.read() as session:
        require(Tier(orgs.one(session, caller.org_id).tier), Feature.DEDICATED_INSTANCES)
    catalog.choose(body.model_id, body.gpu_type, body.region, body.preset)
    spec = DeploymentSpec(
        name=body.name, model_id=body.model_id, gpu_type=body.gpu_type, region=body.region, replicas=body.replicas,
        preset=body.preset, scaling=Scaling(min_replicas=body.replicas, max_replicas=body.replicas),
    )  # fmt: skip
    new_id = _id_for(idempotency_key, caller.org_id) if idempotency_key else deps.new_id("dep")
    digest = _digest(body) if idempotency_key else None
    row = _new_row(deps, new_id, caller, spec, digest)
    with deps.database.write() as session:
        orgs.locked(session, caller.org_id)  # of two requests with one key the second has to see the first's row
        if deployments.get(session, row.id) is None:  # a repeated request starts nothing new
            require_still(session, caller, row.created_at)
            require_an_hour(session, caller, spec.gpu_type, spec.replicas, row.created_at)
        row = deployments.insert_once(session, row)
    if row.request_digest != digest:
        raise Conflict("this Idempotency-Key was used for a different request", deployment_id=new_id)
    return deployment_view(row, deps.public_url)


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
