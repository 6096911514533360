"""`/v1/registries`: who an organisation is to image registries. Asks none of them; pulls happen where images run."""

from __future__ import annotations

from datetime import datetime

from fastapi import APIRouter
from sqlmodel import Session

from api.deps import CallerArg, DepsArg
from api.schemas.registries import RegistryList, RegistryPut, RegistryView, registry_view
from engine.identity.grants import require_still
from engine.model.access import Principal
from engine.model.errors import NotFound
from engine.model.registries import checked_registry
from engine.store import audit, registries
from engine.store.registry_tables import RegistryCredentialRow

router = APIRouter(prefix="/registries", tags=["registries"])


@router.put("/{registry}", summary="Store who pulls images of a registry, for all deployments and pods")
def put_registry(registry: str, body: RegistryPut, caller: CallerArg, deps: DepsArg) -> RegistryView:
    """It counts from the next pull on; what runs is not touched."""
    now, host = deps.clock.now(), checked_registry(registry)
    row = RegistryCredentialRow(
        org_id=caller.org_id, host=host, username=body.username, password_sealed=deps.sealer.seal(body.password),
        created_by=caller.actor, created_at=now, updated_at=now,
    )  # fmt: skip
    with deps.database.write() as session:
        require_still(session, caller, now)
        row = registries.put(session, row)
        _audit(session, caller, "registry.stored", host, now, username=body.username)
        return registry_view(row)


@router.get("", summary="Registries there are stored credentials for")
def list_registries(caller: CallerArg, deps: DepsArg) -> RegistryList:
    with deps.database.read() as session:
        return RegistryList(data=[registry_view(row) for row in registries.list_for_org(session, caller.org_id)])


@router.get("/{registry}", summary="Who pulls images of a registry; the password is not shown")
def get_registry(registry: str, caller: CallerArg, deps: DepsArg) -> RegistryView:
    with deps.database.read() as session:
        return registry_view(_owned(session, caller, registry))


@router.delete("/{registry}", status_code=204, summary="Forget the credentials for a registry")
def delete_registry(registry: str, caller: CallerArg, deps: DepsArg) -> None:
    """Containers that run go on; the next pull is nobody's."""
    with deps.database.write() as session:
        row = _owned(session, caller, registry)
        registries.remove(session, row)
        _audit(session, caller, "registry.forgotten", row.host, deps.clock.now())


def _owned(session: Session, caller: Principal, registry: str) -> RegistryCredentialRow:
    row = registries.get(session, caller.org_id, checked_registry(registry))
    if row is None:
        raise NotFound(f"no credentials are stored for {registry}: PUT /v1/registries/{registry} stores them")
    return row


def _audit(session: Session, caller: Principal, action: str, host: str, now: datetime, **details: str) -> None:
    audit.record(
        session, at=now, actor=caller.actor, org_id=caller.org_id, action=action, subject=host, details=details
    )  # fmt: skip
