"""`/v1/gpu/pods`: rented machines. Only wishes are written here; the reconciler does the work."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query
from sqlmodel import Session

from api.access import check
from api.deps import CallerArg, Deps, DepsArg
from api.schemas.mounts import wanted_mounts
from api.schemas.pods import PodAvailability, PodCreate, PodPage, PodTypes, PodTypeView, PodView, pod_view
from api.schemas.registries import login_of
from engine.billing import meter
from engine.identity.grants import require_still
from engine.model.access import Permission, Principal
from engine.model.errors import Conflict, InsufficientCredit, InvalidSpec, NoCapacity
from engine.model.ledger import Scopes
from engine.model.pod import WORKSPACE, Place, PodPhase, PodSpec, Taken, Target
from engine.model.registries import check_allowed
from engine.reconcilers.pods.observe import taken, taken_soon
from engine.storage import mounts
from engine.store import audit, orgs, pods, prices, registries
from engine.store.pod_tables import PodRow
from stacks.pod_types import SKU_PREFIX, PodMarket, PodType, hourly_usd, sku, volume_hourly_usd
from stacks.pools import check_image

router = APIRouter(prefix="/gpu/pods", tags=["pods"])

_ID_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


async def market_of(deps: DepsArg) -> PodMarket:
    """Where pods can be at this moment."""
    sizes = deps.droplet_sizes
    if sizes is None or not sizes.is_sold:
        return PodMarket(deps.docker_hosts, has_cloud=False)
    return PodMarket(deps.docker_hosts, has_cloud=True, sizes=await sizes.refresh())


MarketArg = Annotated[PodMarket, Depends(market_of)]


@router.get("/types", summary="GPU types, what an hour costs, and where they can be had now")
def list_pod_types(caller: CallerArg, deps: DepsArg, market: MarketArg) -> PodTypes:
    with deps.database.read() as session:
        known = _operator_prices(session, deps.clock.now())
        now_taken = taken_soon(session, market.find_room)
    return PodTypes(data=[_type_view(t, market, now_taken, known) for t in market.types()])


@router.post("", status_code=201, summary="Rent a machine; its first hour is set aside now")
def create_pod(
    body: PodCreate,
    caller: CallerArg,
    deps: DepsArg,
    market: MarketArg,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> PodView:
    """Accept a pod. It can be used once `status` is `running`.

    Where there is no room at this moment the answer is 409 with what could be had instead; nothing is queued. With an
    `Idempotency-Key` a repeated request answers with the pod the first one made.
    """
    now = deps.clock.now()
    pod_type = market.type_named(body.gpu_type_id)
    market.check_region(body.region)
    check_image(body.docker_image)
    check_allowed(body.docker_image, deps.image_registries)
    login = login_of(body.registry_auth, body.docker_image) if body.registry_auth else None
    spec = PodSpec(
        name=body.name, gpu_type=pod_type.id, image=body.docker_image, gpu_count=body.gpu_count,
        container_disk_gb=body.container_disk_gb, volume_gb=body.volume_gb, ports=tuple(dict.fromkeys(body.ports)),
        ssh_public_key=body.ssh_public_key, region=body.region,
    )  # fmt: skip
    new_id = _id_for(idempotency_key, caller.org_id) if idempotency_key else deps.new_id("pod")
    digest = _digest(body, deps) if idempotency_key else None
    with deps.database.write() as session:
        orgs.locked(session, caller.org_id)  # of two requests with one key the second has to see the first's row
        row = pods.get(session, new_id)
        if row is None:
            require_still(session, caller, now)
            known = _operator_prices(session, now)
            spec = _mounting(spec, body, caller, session)
            row = _new_row(deps, new_id, caller, spec, body.env, digest, _price(pod_type, known), now)
            row.registry_auth_sealed = registries.sealed_login(deps.sealer, login)
            _require_room(session, market, spec, None, known)
            _precharge(session, row, row.precharged, now)
            row = pods.insert_once(session, row)
            _audit(session, row, caller, "pod.created", now, image=spec.image, gpus=f"{spec.gpu_count} × {pod_type.id}")
        elif row.request_digest != digest:
            raise Conflict("this Idempotency-Key was used for a different request", pod_id=new_id)
        return _view(session, row, deps)


@router.get("", summary="List your pods, newest first")
def list_pods(
    caller: CallerArg,
    deps: DepsArg,
    limit: Annotated[int, Query(ge=1, le=200)] = 50,
    after: str | None = None,
    include_terminated: bool = False,
) -> PodPage:
    with deps.database.read() as session:
        rows = pods.list_for_org(session, caller.org_id, limit=limit + 1, after=after, deleted=include_terminated)
        return PodPage(data=[_view(session, row, deps) for row in rows[:limit]], has_more=len(rows) > limit)


@router.get("/{pod_id}", summary="Get a pod: status, address, how to log in, what it cost")
def get_pod(pod_id: str, caller: CallerArg, deps: DepsArg) -> PodView:
    with deps.database.read() as session:
        return _view(session, pods.owned(session, pod_id, caller.org_id), deps)


@router.post("/{pod_id}/stop", status_code=202, summary="Stop a pod; its volume and address are kept")
def stop_pod(pod_id: str, caller: CallerArg, deps: DepsArg) -> PodView:
    """GPU billing ends now; the volume goes on at the storage price. Stopping a stopped pod changes nothing."""
    now = deps.clock.now()
    with deps.database.write() as session:
        row = _editable(session, pod_id, caller)
        if not row.is_stopped:
            row = _wished(pods.wish(session, row, now, stopped=True))
            _audit(session, row, caller, "pod.stopped", now)
        return _view(session, row, deps)


@router.post("/{pod_id}/start", status_code=202, summary="Start a stopped or failed pod; an hour is set aside again")
def start_pod(pod_id: str, caller: CallerArg, deps: DepsArg, market: MarketArg) -> PodView:
    """Its files come back. Where there is no room the answer is 409. Starting a running pod changes nothing."""
    now = deps.clock.now()
    with deps.database.write() as session:
        orgs.locked(session, caller.org_id)
        row = _editable(session, pod_id, caller)
        if row.suspended_at is not None:
            raise InsufficientCredit(f"pod {pod_id} is suspended: {row.suspended_reason}")
        if pods.wants_machine(row):
            return _view(session, row, deps)
        require_still(session, caller, now)
        if not row.held_gpus:
            _require_room(session, market, pods.spec_of(row), pods.place_of(row), _operator_prices(session, now))
        interval = row.precharged or deps.new_id("use")
        if not row.precharged:
            _precharge(session, row, interval, now)
        row = _wished(pods.wish(session, row, now, stopped=False, precharged=interval))
        _audit(session, row, caller, "pod.started", now)
        return _view(session, row, deps)


@router.post("/{pod_id}/restart", status_code=202, summary="Make the machine of a running pod anew")
def restart_pod(pod_id: str, caller: CallerArg, deps: DepsArg) -> PodView:
    """Volume and address stay, what was written elsewhere is gone. Billing goes on."""
    now = deps.clock.now()
    with deps.database.write() as session:
        row = _editable(session, pod_id, caller)
        if not pods.wants_machine(row) or row.phase not in (PodPhase.RUNNING, PodPhase.RESTARTING):
            raise Conflict(f"pod {pod_id} is {row.phase}: only a running pod can be restarted; start it instead")
        row = _wished(pods.wish(session, row, now, stopped=False, restart=True))
        _audit(session, row, caller, "pod.restarted", now)
        return _view(session, row, deps)


@router.delete("/{pod_id}", status_code=202, summary="Terminate a pod with its volume; all billing stops now")
def delete_pod(pod_id: str, caller: CallerArg, deps: DepsArg) -> PodView:
    now = deps.clock.now()
    with deps.database.write() as session:
        before = pods.owned(session, pod_id, caller.org_id)
        is_new = before.delete_requested_at is None
        row = _wished(pods.request_delete(session, pod_id, now))
        if is_new:
            _audit(session, row, caller, "pod.deleted", now)
        return _view(session, row, deps)


def _editable(session: Session, pod_id: str, caller: Principal) -> PodRow:
    row = pods.owned(session, pod_id, caller.org_id)
    if row.delete_requested_at is not None:
        raise Conflict(f"pod {pod_id} is being terminated, or is: make another one")
    return row


def _wished(row: PodRow | None) -> PodRow:
    if row is None:
        raise Conflict("another request changed this pod at the same moment: read it and try again")
    return row


def _require_room(
    session: Session, market: PodMarket, spec: PodSpec, place: Place | None, known: dict[str, Decimal]
) -> None:
    """Refuse what nothing can run now: waiting machines that nobody announced help nobody.

    Raises:
        NoCapacity: names why, and the types that could be had instead.
    """
    now_taken = taken_soon(session, market.find_room) if place is None else taken(session)
    room = market.find_room(spec, place, now_taken)
    if room.offers:
        return
    others = [_type_view(t, market, now_taken, known) for t in market.types() if t.id != spec.gpu_type]
    instead = [t for t in others if t.available]
    names = ", ".join(t.id for t in instead) or "none at this moment"
    where = f" in {place.host or place.region}, where its volume is" if place else ""
    raise NoCapacity(
        f"there is no room for {spec.gpu_count} × {spec.gpu_type}{where} at this moment "
        f"({'; '.join(room.passed_over)}); types that can be had: {names}",
        alternatives=[t.model_dump(mode="json", by_alias=True) for t in instead],
        passed_over=list(room.passed_over),
    )  # fmt: skip


def _price(pod_type: PodType, known: dict[str, Decimal]) -> Decimal:
    price = hourly_usd(pod_type, known)
    if price is None:
        raise InvalidSpec(
            f"there is no price for {pod_type.id} here: the operator of this installation has to set one "
            f"(sku {sku(pod_type.id)}, unit gpu_hour)",
            field="gpuTypeId",
        )
    return price


def _new_row(
    deps: Deps, pod_id: str, caller: Principal, spec: PodSpec, env: dict[str, str], digest: str | None, price: Decimal,
    now: datetime,
) -> PodRow:  # fmt: skip
    return PodRow(
        id=pod_id, org_id=caller.org_id, name=spec.name, spec=spec.model_dump(mode="json"),
        env_sealed=deps.sealer.seal(json.dumps(env, sort_keys=True)) if env else "",
        hourly_rate_usd=f"{price * spec.gpu_count:f}", volume_rate_usd=f"{volume_hourly_usd(spec.volume_gb):f}",
        created_at=now, updated_at=now, request_digest=digest, created_by=caller.user_id,
        created_with=caller.key_lineage or caller.key_id, precharged=deps.new_id("use"),
    )  # fmt: skip


def _mounting(spec: PodSpec, body: PodCreate, caller: Principal, session: Session) -> PodSpec:
    """With the mounts the body asks for; whoever asks has to be able to read them."""
    if body.mounts:
        check(Permission.STORAGE_READ, caller)
    mounted = mounts.pinned(session, caller.org_id, wanted_mounts(body.mounts))
    if any(mount.path == WORKSPACE for mount in mounted):
        raise InvalidSpec(f"a mount's path is {WORKSPACE}, where the volume is: choose another", field="mounts")
    return spec.model_copy(update={"mounts": tuple(mounted)})


def _precharge(session: Session, row: PodRow, interval_id: str, now: datetime) -> None:
    """Set the first hour aside, or refuse before anything is made."""
    meter.precharge(
        session, interval_id=interval_id, scopes=Scopes(row.org_id, row.created_by, row.created_with, row.id),
        hourly_rate_usd=Decimal(row.hourly_rate_usd), now=now,
    )  # fmt: skip


def _type_view(pod_type: PodType, market: PodMarket, now_taken: Taken, known: dict[str, Decimal]) -> PodTypeView:
    """One GPU of it: where it is offered, and why elsewhere it is not."""
    price = hourly_usd(pod_type, known)
    asked = PodSpec(name="", gpu_type=pod_type.id, image="")
    room = market.find_room(asked, None, now_taken)
    offered = [
        PodAvailability(
            target=o.place.target.value, region=o.place.region, available=price is not None,
            reason="" if price is not None else "the operator has set no price",
        )
        for o in room.offers
    ]  # fmt: skip
    missing = [
        PodAvailability(
            target=(Target.DOCKER if why.startswith("docker ") else Target.DIGITALOCEAN).value, region="",
            available=False, reason=why,
        )
        for why in room.passed_over
    ]  # fmt: skip
    counts = {1, *pod_type.droplets} if market.has_cloud else {1}
    most = max((host.capacity(pod_type.pool) for host in market.hosts if pod_type.pool), default=0)
    return PodTypeView(
        id=pod_type.id, display_name=pod_type.display_name, vram_gb=pod_type.vram_gb,
        price_per_hour=float(price) if price is not None else None, available=any(a.available for a in offered),
        availability=[*offered, *missing], gpu_counts=sorted(counts | set(range(1, min(most, 8) + 1))),
    )  # fmt: skip


def _view(session: Session, row: PodRow, deps: Deps) -> PodView:
    names = list(json.loads(deps.sealer.open(row.env_sealed))) if row.env_sealed else []
    return pod_view(
        row, env=names, login=registries.opened_login(deps.sealer, row.registry_auth_sealed),
        cost_usd=meter.deployment_cost(session, row.id, deps.clock.now()),
    )  # fmt: skip


def _operator_prices(session: Session, now: datetime) -> dict[str, Decimal]:
    """Sku → the operator's price of a GPU hour now."""
    rows = [r for r in prices.everything(session) if r.sku.startswith(SKU_PREFIX) and r.effective_from <= now]
    return {row.sku: row.unit_usd for row in rows}  # by time: the last one counts


def _audit(session: Session, row: PodRow, caller: Principal, action: str, now: datetime, **details: Any) -> None:
    audit.record(
        session, at=now, actor=caller.actor, org_id=row.org_id, action=action, subject=row.id, details=details
    )  # fmt: skip


def _id_for(idempotency_key: str, org_id: str) -> str:
    """The id a key stands for: the same key of the same tenant can only ever name one pod."""
    digest = hmac.new(org_id.encode(), b"pod " + idempotency_key.encode(), hashlib.sha256).digest()
    return "pod_" + "".join(_ID_ALPHABET[byte & 31] for byte in digest[:16])


def _digest(body: PodCreate, deps: Deps) -> str:
    """What was asked for, in few letters; of the environment a keyed digest, so that nobody can try values."""
    asked = body.model_dump(mode="json", exclude_defaults=True, exclude={"env", "registry_auth"})
    if body.registry_auth is not None:
        asked["registry_auth"] = deps.hasher.hash(body.registry_auth.model_dump_json())
    asked["env"] = deps.hasher.hash(json.dumps(body.env, sort_keys=True))
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
