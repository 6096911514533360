"""`/v1/deployments`: handlers, images whose workers execute jobs. Only the specification is written here."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from pydantic import ValidationError
from sqlmodel import Session

from api.access import check
from api.deps import CallerArg, Deps, DepsArg
from api.schemas.handlers import (
    HandlerCreate,
    HandlerPage,
    HandlerPatch,
    HandlerView,
    handler_view,
    spec_values,
)
from api.schemas.mounts import wanted_mounts
from api.schemas.registries import login_of
from engine.billing import spend
from engine.identity.grants import require_still
from engine.identity.worker_identity import new_worker_identity
from engine.model.access import Permission, Principal
from engine.model.errors import Conflict, InvalidSpec
from engine.model.handler import HandlerSpec
from engine.model.ledger import Scopes
from engine.model.registries import check_allowed
from engine.storage import mounts
from engine.store import handlers, orgs, prices, registries
from engine.store.handler_tables import HandlerRow
from engine.store.handlers import owned
from stacks import pools

router = APIRouter(tags=["handlers"])

_ID_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


@router.post("/deployments", status_code=201, summary="Deploy an image whose workers execute jobs")
def create_handler(
    body: HandlerCreate,
    caller: CallerArg,
    deps: DepsArg,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> HandlerView:
    """Accept a deployment; jobs can be submitted at once, the first one starts a worker.

    With an `Idempotency-Key` a repeated request answers with the deployment the first one made.
    """
    now = deps.clock.now()
    spec = _spec({"name": body.name or body.slug}, body)
    new_id = _id_for(idempotency_key, caller.org_id) if idempotency_key else deps.new_id("hdl")
    digest = _digest(body, deps) if idempotency_key else None
    with deps.database.read() as session:
        known = _operator_prices(session, now)
        spec = _mounting(spec, body, caller, session)
    _check(spec, body.secrets or {}, deps, known)
    row = _new_row(deps, new_id, caller, spec, body, digest, now)
    with deps.database.write() as session:
        orgs.locked(session, caller.org_id)  # of two requests with one key the second has to see the first's row
        if handlers.get(session, new_id) is None:  # a repeated request starts nothing new
            require_still(session, caller, now)
            scopes = Scopes(caller.org_id, caller.user_id, caller.key_lineage or caller.key_id, None)
            spend.require_funds(session, caller.org_id, scopes=scopes, now=now)
        row = handlers.insert_once(session, row)
        if row.request_digest != digest:
            raise Conflict("this Idempotency-Key was used for a different request", deployment_id=new_id)
        return _view(session, row, deps, known)


@router.get("/deployments", summary="List your handler deployments, newest first")
def list_handlers(
    caller: CallerArg,
    deps: DepsArg,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: str | None = None,
    include_inactive: bool = False,
) -> HandlerPage:
    only = None if caller.grants is None else [i for i in caller.grants if caller.may(Permission.DEPLOYMENT_READ, i)]
    with deps.database.read() as session:
        rows = handlers.list_for_org(
            session, caller.org_id, limit=limit + 1, after=after, deleted=include_inactive, only=only
        )
        known = _operator_prices(session, deps.clock.now())
        data = [_view(session, row, deps, known) for row in rows[:limit]]
    return HandlerPage(data=data, has_more=len(rows) > limit)


@router.get("/deployments/{handler}", summary="Get a handler deployment, by id or slug, and its status")
def get_handler(handler: str, caller: CallerArg, deps: DepsArg) -> HandlerView:
    with deps.database.read() as session:
        row = owned(session, handler, caller.org_id)
        return _view(session, row, deps, _operator_prices(session, deps.clock.now()))


@router.patch("/deployments/{handler}", summary="Change a handler deployment; running jobs finish where they run")
def patch_handler(handler: str, body: HandlerPatch, caller: CallerArg, deps: DepsArg) -> HandlerView:
    """Change what is given. New workers are made before the old ones are drained, where there is capacity."""
    now = deps.clock.now()
    with deps.database.write() as session:
        row = owned(session, handler, caller.org_id)
        if row.delete_requested_at is not None:
            raise Conflict(f"deployment {handler} is being deleted: nothing of it can be changed")
        require_still(session, caller, now)
        before = handlers.spec_of(row)
        spec = _mounting(_spec(before.model_dump(), body), body, caller, session)
        known = _operator_prices(session, now)
        kept = _opened(row, deps) if body.secrets is None else body.secrets
        _check(spec, kept, deps, known)
        auth = _sealed_auth(body, spec, deps) if "registry_auth" in body.model_fields_set else None
        if spec != before or body.secrets is not None or auth is not None:
            sealed = None if body.secrets is None else _seal(body.secrets, deps)
            edited = handlers.update_spec(
                session, row.id, spec, generation=row.generation, now=now, secrets_sealed=sealed,
                registry_auth_sealed=auth,
            )  # fmt: skip
            if edited is None:
                raise Conflict(f"deployment {handler} was changed at the same moment: read it and try again")
            row = edited
        return _view(session, row, deps, known)


@router.delete("/deployments/{handler}", status_code=202, summary="Tear a handler deployment down")
def delete_handler(handler: str, caller: CallerArg, deps: DepsArg) -> HandlerView:
    now = deps.clock.now()
    with deps.database.write() as session:
        row = handlers.request_delete(session, owned(session, handler, caller.org_id).id, now)
        assert row is not None  # it was found in this transaction, and rows stay
        return _view(session, row, deps, _operator_prices(session, now))


def _spec(before: Mapping[str, Any], body: HandlerPatch) -> HandlerSpec:
    try:
        return HandlerSpec.model_validate({**before, **spec_values(body)})
    except ValidationError as err:  # the wire's types have said it already, where they can
        raise InvalidSpec("; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in err.errors())) from None


def _mounting(spec: HandlerSpec, body: HandlerPatch, caller: Principal, session: Session) -> HandlerSpec:
    """With the mounts the body asks for, if it says anything of them; whoever asks has to be able to read them."""
    if body.mounts is None:
        return spec
    if body.mounts:
        check(Permission.STORAGE_READ, caller)
    return spec.model_copy(update={"mounts": tuple(mounts.pinned(session, caller.org_id, wanted_mounts(body.mounts)))})


def _check(spec: HandlerSpec, secrets: Mapping[str, str], deps: Deps, known: Mapping[str, Decimal]) -> None:
    """Refuse what could never run."""
    pools.check_image(spec.image)
    check_allowed(spec.image, deps.image_registries)
    pools.check_pools(spec.pools, deps.docker_hosts, known)
    if spec.workers_min > spec.workers_max:
        raise InvalidSpec(
            f"workersMin ({spec.workers_min}) is more than workersMax ({spec.workers_max})", field="workersMin"
        )
    if len(set(spec.ports)) != len(spec.ports):
        raise InvalidSpec("ports names one port twice", field="ports")
    if both := sorted(set(spec.env) & set(secrets)):
        raise InvalidSpec(f"{', '.join(both)}: given in env and in secrets; choose one", field="secrets")


def _new_row(
    deps: Deps, handler_id: str, caller: Principal, spec: HandlerSpec, body: HandlerCreate, digest: str | None,
    now: datetime,
) -> HandlerRow:  # fmt: skip
    identity = new_worker_identity(handler_id, now)
    return HandlerRow(
        id=handler_id, org_id=caller.org_id, slug=spec.slug, name=spec.name, spec=spec.model_dump(mode="json"),
        secrets_sealed=_seal(body.secrets or {}, deps), registry_auth_sealed=_sealed_auth(body, spec, deps),
        created_at=now, updated_at=now, request_digest=digest,
        created_by=caller.user_id, created_with=caller.key_lineage or caller.key_id,
        worker_token_sealed=deps.sealer.seal(identity.token),
        worker_key_sealed=deps.sealer.seal(identity.private_key_pem),
        worker_certificate_pem=identity.certificate_pem, worker_fingerprint=identity.fingerprint,
    )  # fmt: skip


def _view(session: Session, row: HandlerRow, deps: Deps, known: Mapping[str, Decimal]) -> HandlerView:
    return handler_view(
        row, deps.public_url, secret_names=list(_opened(row, deps)),
        login=registries.opened_login(deps.sealer, row.registry_auth_sealed),
        activity=handlers.activity(session, row.id), prices=known,
    )  # fmt: skip


def _operator_prices(session: Session, now: datetime) -> dict[str, Decimal]:
    """Sku → the operator's price of a GPU second now."""
    rows = [r for r in prices.everything(session) if r.sku.startswith(pools.SKU_PREFIX) and r.effective_from <= now]
    return {row.sku: row.unit_usd for row in rows}  # by time: the last one counts


def _seal(secrets: Mapping[str, str], deps: Deps) -> str:
    return deps.sealer.seal(json.dumps(dict(secrets), sort_keys=True)) if secrets else ""


def _sealed_auth(body: HandlerPatch, spec: HandlerSpec, deps: Deps) -> str:
    """Credentials as a row keeps them; "" for none."""
    return registries.sealed_login(
        deps.sealer, login_of(body.registry_auth, spec.image) if body.registry_auth else None
    )


def _opened(row: HandlerRow, deps: Deps) -> dict[str, str]:
    opened: dict[str, str] = json.loads(deps.sealer.open(row.secrets_sealed)) if row.secrets_sealed else {}
    return opened


def _id_for(idempotency_key: str, org_id: str) -> str:
    """The id a key stands for: the same key of the same tenant can only ever name one deployment."""
    digest = hmac.new(org_id.encode(), b"handler " + idempotency_key.encode(), hashlib.sha256).digest()
    return "hdl_" + "".join(_ID_ALPHABET[byte & 31] for byte in digest[:16])


def _digest(body: HandlerCreate, deps: Deps) -> str:
    """What was asked for, in few letters; a field left out and its default are the same request.

    Of secrets a keyed digest counts: the stored one must not let anybody try values.
    """
    asked = body.model_dump(mode="json", exclude_defaults=True, exclude={"secrets", "registry_auth"})
    secrets = json.dumps(body.secrets or {}, sort_keys=True)
    asked["secrets"] = deps.hasher.hash(secrets)
    if body.registry_auth is not None:
        asked["registry_auth"] = deps.hasher.hash(body.registry_auth.model_dump_json())
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
