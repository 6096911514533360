"""`/deployments/{id}/permissions`: which keys may work with a deployment. The first grant scopes a key, for good."""

from __future__ import annotations

from fastapi import APIRouter

from api.deps import CallerArg, DepsArg
from api.schemas.permissions import PermissionCreate, PermissionList, PermissionView, permission_view
from engine.identity.grants import grant, owned_by, withdraw
from engine.identity.issue import changeable, may_change
from engine.store import grants

router = APIRouter(prefix="/deployments/{deployment_id}/permissions", tags=["permissions"])


@router.post("", status_code=201, summary="Let a key work with this deployment, and from now on only with granted ones")
def grant_permission(deployment_id: str, body: PermissionCreate, caller: CallerArg, deps: DepsArg) -> PermissionView:
    """Granting again changes the role. A key without any grant until now loses everything else it could do, for good:
    withdrawing its last grant leaves it with nothing. No key can be scoped by itself.
    """
    with deps.database.write() as session:
        owned_by(session, deployment_id, caller.org_id)
        changeable(session, caller, body.api_key_id)
        return permission_view(grant(session, caller, deployment_id, body.api_key_id, body.role, deps.clock.now()))


@router.get("", summary="Keys that were granted access to this deployment")
def list_permissions(deployment_id: str, caller: CallerArg, deps: DepsArg) -> PermissionList:
    with deps.database.read() as session:
        owned_by(session, deployment_id, caller.org_id)
        rows = grants.list_for_deployment(session, deployment_id)
    return PermissionList(data=[permission_view(row) for row, key in rows if may_change(caller, key)])


@router.delete("/{key_id}", status_code=204, summary="Take a key's access to this deployment back")
def withdraw_permission(deployment_id: str, key_id: str, caller: CallerArg, deps: DepsArg) -> None:
    with deps.database.write() as session:
        owned_by(session, deployment_id, caller.org_id)
        changeable(session, caller, key_id)
        withdraw(session, caller, deployment_id, key_id, deps.clock.now())
