"""Routes of `/v2/volumes` and what is done to volumes. Block storage on paper: nothing is mounted anywhere."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from engine.sandbox import billing, shapes
from engine.sandbox.assets import Snapshot, Volume
from engine.sandbox.catalog import REGIONS
from engine.sandbox.errors import bad_request, conflict, not_found, unprocessable
from engine.sandbox.records import Action, Droplet
from engine.sandbox.routing import NO_CONTENT, Reply, Request, page_of
from engine.sandbox.tags import made_tags

NAME = re.compile(r"[a-z][a-z0-9-]{0,63}")
MAX_GIB = 16384
MAX_PER_DROPLET = 15
LABEL_LENGTHS: Mapping[str, int] = {"ext4": 16, "xfs": 12}


def _volume(request: Request) -> Volume:
    return request.asset(Volume, "volume")


def _shape(request: Request) -> Callable[[Volume], object]:
    return lambda v: shapes.volume(v, request.cloud)


def list_volumes(request: Request) -> Reply:
    """GET /v2/volumes, by name and region if asked."""
    query = request.query
    found = [
        v
        for v in request.account.table(Volume).values()
        if query.get("name") in (None, "", v.name) and query.get("region") in (None, "", v.region)
    ]
    return page_of(request, "volumes", found, _shape(request))


def create(request: Request) -> Reply:
    """POST /v2/volumes"""
    cloud, account = request.cloud, request.account
    if len(account.table(Volume)) >= cloud.volume_limit:
        raise unprocessable("creating this volume will exceed your volume limit")
    source = _source(request)
    name, region = request.text("name"), request.text("region", source.region if source else None)
    if region not in REGIONS or (source is not None and source.region != region):
        raise unprocessable("region is invalid" if source is None else f"the snapshot is in {source.region}")
    if not NAME.fullmatch(name):
        raise unprocessable("name must begin with a letter; the rest may be lowercase letters, digits and -")
    if any(v.name == name and v.region == region for v in account.table(Volume).values()):
        raise conflict("a volume with this name already exists in the region")
    size = request.number("size_gigabytes", 1, MAX_GIB, source.min_disk_gib if source else None)
    if source is not None and size < source.min_disk_gib:
        raise unprocessable(f"size_gigabytes must be at least the snapshot's {source.min_disk_gib}")
    kind, label = _filesystem(request, source)
    volume = Volume(
        id=cloud.new_uuid(), account=account.name, name=name, created_at=cloud.now(), region=region, size_gib=size,
        description=request.text("description", ""), filesystem_type=kind, filesystem_label=label,
        tags=made_tags(request),
    )  # fmt: skip
    cloud.assets.add(account, volume, hits=request.hits, rate_usd=billing.VOLUME_GIB_HOUR * size)
    return Reply(201, {"volume": shapes.volume(volume, cloud)})


def _source(request: Request) -> Snapshot | None:
    id = request.text("snapshot_id", "")
    if not id:
        return None
    found = request.account.table(Snapshot).get(id)
    if found is None or found.source_type != "volume":
        raise unprocessable("snapshot_id is not a snapshot of a volume")
    return found


def _filesystem(request: Request, source: Snapshot | None) -> tuple[str, str]:
    kind = request.text("filesystem_type", source.filesystem_type if source else "")
    label = request.text("filesystem_label", source.filesystem_label if source else "")
    if kind and kind not in LABEL_LENGTHS:
        raise unprocessable("filesystem_type must be ext4 or xfs")
    if label and not kind:
        raise unprocessable("filesystem_label needs a filesystem_type")
    if kind and len(label) > LABEL_LENGTHS[kind]:
        raise unprocessable(f"filesystem_label of {kind} may have at most {LABEL_LENGTHS[kind]} characters")
    return kind, label


def get(request: Request) -> Reply:
    """GET /v2/volumes/{volume}"""
    return Reply(200, {"volume": shapes.volume(_volume(request), request.cloud)})


def delete(request: Request) -> Reply:
    """DELETE /v2/volumes/{volume}"""
    return _delete(request, _volume(request))


def delete_named(request: Request) -> Reply:
    """DELETE /v2/volumes?name=…&region=…"""
    name, region = request.query.get("name"), request.query.get("region")
    if not name or not region:
        raise bad_request("name and region are required: they say which volume to delete")
    return _delete(request, _named(request, name, region))


def _named(request: Request, name: object, region: object) -> Volume:
    found = [v for v in request.account.table(Volume).values() if (v.name, v.region) == (name, region)]
    if not found:
        raise not_found()
    return found[0]


def _delete(request: Request, volume: Volume) -> Reply:
    if volume.droplet_id:
        raise conflict(f"the volume is attached to Droplet {volume.droplet_id}: detach it first")
    if volume.pending_action:
        raise unprocessable("volume already has a pending event.")
    request.cloud.assets.remove(request.account, volume)
    return NO_CONTENT


def act(request: Request) -> Reply:
    """POST /v2/volumes/{volume}/actions"""
    volume = _volume(request)
    kind = request.text("type")
    if kind not in ACTIONS:
        raise unprocessable(f"{kind} is not an action of volumes; valid: {', '.join(ACTIONS)}")
    if request.text("region", volume.region) != volume.region:
        raise unprocessable(f"the volume is in {volume.region}")
    return _accepted(request, ACTIONS[kind](request, volume))


def act_named(request: Request) -> Reply:
    """POST /v2/volumes/actions: attach by `volume_name` and `region`, and detach."""
    kind = request.text("type")
    if kind not in ("attach", "detach"):
        raise unprocessable("by name only: attach, detach")
    volume = _named(request, request.text("volume_name"), request.text("region", _droplet(request).region))
    return _accepted(request, ACTIONS[kind](request, volume))


def _accepted(request: Request, action: Action) -> Reply:
    return Reply(202, {"action": shapes.action(action, request.cloud)})


def _droplet(request: Request) -> Droplet:
    id = request.body.get("droplet_id")
    if not isinstance(id, int) or isinstance(id, bool):
        raise unprocessable("droplet_id is required and must be a number")
    return request.cloud.droplet(request.account, id)


def _attach(request: Request, volume: Volume) -> Action:
    droplet = _droplet(request)
    if volume.droplet_id:
        raise unprocessable(f"the volume is already attached to Droplet {volume.droplet_id}")
    check_attachable(request, droplet.region, [volume], len(droplet.volume_ids))
    made_tags(request)
    return request.cloud.assets.begin(
        request.account, volume, "attach_volume", fails=request.fails(), droplet_id=droplet.id
    )  # fmt: skip


def check_attachable(request: Request, region: str, volumes: list[Volume], attached: int = 0) -> None:
    """Refuse volumes a Droplet of this region cannot take.

    Raises:
        ApiError: 422.
    """
    if attached + len(volumes) > MAX_PER_DROPLET:
        raise unprocessable(f"a Droplet can have at most {MAX_PER_DROPLET} volumes")
    for volume in volumes:
        if volume.droplet_id:
            raise unprocessable(f"volume {volume.id} is already attached to Droplet {volume.droplet_id}")
        if volume.region != region:
            raise unprocessable(f"volume {volume.id} is in {volume.region}, the Droplet in {region}")


def _detach(request: Request, volume: Volume) -> Action:
    asked = request.body.get("droplet_id", volume.droplet_id)
    if not volume.droplet_id or asked != volume.droplet_id:
        raise unprocessable("the volume is not attached to this Droplet")
    return request.cloud.assets.begin(
        request.account, volume, "detach_volume", fails=request.fails(), droplet_id=volume.droplet_id
    )  # fmt: skip


def _resize(request: Request, volume: Volume) -> Action:
    size = request.number("size_gigabytes", 1, MAX_GIB)
    if size <= volume.size_gib:
        raise unprocessable(f"size_gigabytes must be more than the {volume.size_gib} it has: volumes only grow")
    return request.cloud.assets.begin(request.account, volume, "resize", fails=request.fails(), size_gib=size)


ACTIONS: Mapping[str, Callable[[Request, Volume], Action]] = {"attach": _attach, "detach": _detach, "resize": _resize}


def list_actions(request: Request) -> Reply:
    """GET /v2/volumes/{volume}/actions, newest first."""
    volume = _volume(request)
    found = [a for a in request.account.actions.values() if a.resource == volume.id]
    return page_of(request, "actions", found[::-1], lambda a: shapes.action(a, request.cloud))


def get_action(request: Request) -> Reply:
    """GET /v2/volumes/{volume}/actions/{action}"""
    action = request.account.actions.get(request.int_value("action"))
    if action is None or action.resource != _volume(request).id:
        raise not_found()
    return Reply(200, {"action": shapes.action(action, request.cloud)})


def list_snapshots(request: Request) -> Reply:
    """GET /v2/volumes/{volume}/snapshots"""
    volume = _volume(request)
    found = [s for s in request.account.table(Snapshot).values() if s.source == volume.id]
    return page_of(request, "snapshots", found, shapes.snapshot)


def snapshot(request: Request) -> Reply:
    """POST /v2/volumes/{volume}/snapshots"""
    volume, cloud = _volume(request), request.cloud
    made = Snapshot(
        id=cloud.new_uuid(), account=request.account.name, name=request.text("name"), created_at=cloud.now(),
        region=volume.region, source=volume.id, source_type="volume", size_gib=volume.size_gib,
        min_disk_gib=volume.size_gib, tags=made_tags(request), filesystem_type=volume.filesystem_type,
        filesystem_label=volume.filesystem_label,
    )  # fmt: skip
    rate = billing.SNAPSHOT_GIB_HOUR * volume.size_gib
    cloud.assets.add(request.account, made, hits=request.hits, rate_usd=rate)
    return Reply(201, {"snapshot": shapes.snapshot(made)})


ROUTES = (
    ("GET", "/v2/volumes", list_volumes),
    ("POST", "/v2/volumes", create),
    ("DELETE", "/v2/volumes", delete_named),
    ("POST", "/v2/volumes/actions", act_named),
    ("GET", "/v2/volumes/{volume}", get),
    ("DELETE", "/v2/volumes/{volume}", delete),
    ("GET", "/v2/volumes/{volume}/actions", list_actions),
    ("POST", "/v2/volumes/{volume}/actions", act),
    ("GET", "/v2/volumes/{volume}/actions/{action}", get_action),
    ("GET", "/v2/volumes/{volume}/snapshots", list_snapshots),
    ("POST", "/v2/volumes/{volume}/snapshots", snapshot),
)
