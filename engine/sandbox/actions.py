"""Routes of actions: what is done to a Droplet, and looking at it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from engine.sandbox import shapes
from engine.sandbox.catalog import IMAGES, IMAGES_BY_ID, SIZES
from engine.sandbox.droplets import HOSTNAME, droplet_of, snapshot_image
from engine.sandbox.errors import bad_request, not_found, unprocessable
from engine.sandbox.records import Action, Droplet, Phase
from engine.sandbox.routing import Reply, Request, page_of

Arguments = dict[str, Any]


def _none(request: Request, droplet: Droplet) -> Arguments:
    return {}


def _must_run(request: Request, droplet: Droplet) -> Arguments:
    if droplet.phase is not Phase.ACTIVE:
        raise unprocessable("Droplet is powered off.")
    return {}


def _must_be_off(request: Request, droplet: Droplet) -> Arguments:
    if droplet.phase is Phase.ACTIVE:
        raise unprocessable("Droplet is already powered on.")
    return {}


def _rename(request: Request, droplet: Droplet) -> Arguments:
    name = request.text("name")
    if not HOSTNAME.fullmatch(name):
        raise unprocessable("Only valid hostname characters are allowed. (a-z, A-Z, 0-9, . and -)")
    return {"name": name}


def _resize(request: Request, droplet: Droplet) -> Arguments:
    size = SIZES.get(request.text("size"))
    if size is None or droplet.region not in size.regions:
        raise unprocessable("You specified an invalid size for Droplet resize.")
    if droplet.phase is Phase.ACTIVE:
        raise unprocessable("Droplet must be powered off to be resized.")
    if request.body.get("disk") is True and size.disk_gib < SIZES[droplet.size].disk_gib:
        raise unprocessable("This size is not available because it has a smaller disk.")
    if request.cloud.capacity.left(size.slug, droplet.region) == 0:
        raise unprocessable(f"The size {size.slug} is out of capacity in region {droplet.region}.")
    return {"size": size.slug}


def _rebuild(request: Request, droplet: Droplet) -> Arguments:
    wanted = request.body.get("image")
    image = IMAGES.get(wanted) if isinstance(wanted, str) else None
    if isinstance(wanted, int):
        image = IMAGES_BY_ID.get(wanted)
        if image is None and (own := snapshot_image(request.account, wanted)) is not None:
            return {"image": int(own.id)}
    if image is None:
        raise unprocessable("You specified an invalid image for Droplet rebuild.")
    return {"image": image.id}


def _restore(request: Request, droplet: Droplet) -> Arguments:
    wanted = request.body.get("image")
    if not isinstance(wanted, int) or wanted not in droplet.snapshot_ids:
        raise unprocessable("You specified an invalid image for Droplet restore: it must be one of its snapshots.")
    return {"image": wanted}


def _snapshot(request: Request, droplet: Droplet) -> Arguments:
    stamp = shapes.timestamp(request.cloud.now())
    return {"name": request.text("name", "") or f"{droplet.name}-{stamp}"}


TYPES: Mapping[str, Callable[[Request, Droplet], Arguments]] = {
    "power_on": _must_be_off,
    "power_off": _must_run,
    "shutdown": _must_run,
    "reboot": _must_run,
    "power_cycle": _none,
    "rename": _rename,
    "resize": _resize,
    "rebuild": _rebuild,
    "restore": _restore,
    "snapshot": _snapshot,
    "enable_ipv6": _none,
    "enable_backups": _none,
    "disable_backups": _none,
}
TAGGED_TYPES = (
    "power_on",
    "power_off",
    "shutdown",
    "power_cycle",
    "enable_ipv6",
    "enable_backups",
    "disable_backups",
    "snapshot",
)


def _begin(request: Request, droplet: Droplet) -> Action:
    kind = request.text("type")
    if kind not in TYPES:
        raise unprocessable(f"{kind} is not an action of this cloud; valid: {', '.join(TYPES)}")
    if droplet.pending_action:
        raise unprocessable("Droplet already has a pending event.")
    arguments = TYPES[kind](request, droplet)
    cloud = request.cloud
    return cloud.begin(request.account, droplet, kind, cloud.timings.action_seconds, fails=request.fails(), **arguments)


def begin(request: Request) -> Reply:
    """POST /v2/droplets/{droplet}/actions"""
    action = _begin(request, droplet_of(request))
    return Reply(201, {"action": shapes.action(action, request.cloud)})


def begin_tagged(request: Request) -> Reply:
    """POST /v2/droplets/actions?tag_name=…"""
    name = request.query.get("tag_name")
    if not name:
        raise bad_request("tag_name is required: it says which Droplets to act on")
    if request.text("type") not in TAGGED_TYPES:
        raise unprocessable(f"by tag only: {', '.join(TAGGED_TYPES)}")
    tag = request.account.tags.get(name.lower())
    droplets = [request.account.droplets[i] for i in sorted(tag.droplet_ids)] if tag else []
    actions = [_begin(request, d) for d in droplets]
    return Reply(201, {"actions": [shapes.action(a, request.cloud) for a in actions]})


def list_actions(request: Request) -> Reply:
    """GET /v2/actions, newest first."""
    return _page(request, list(request.account.actions.values()))


def list_droplet_actions(request: Request) -> Reply:
    """GET /v2/droplets/{droplet}/actions, newest first."""
    droplet = droplet_of(request)
    return _page(request, [a for a in request.account.actions.values() if a.droplet_id == droplet.id])


def _page(request: Request, actions: list[Action]) -> Reply:
    return page_of(request, "actions", actions[::-1], lambda a: shapes.action(a, request.cloud))


def get_action(request: Request) -> Reply:
    """GET /v2/actions/{action}, and the same below a Droplet."""
    action = request.account.actions.get(request.int_value("action"))
    if action is None or request.values.get("droplet", str(action.droplet_id)) != str(action.droplet_id):
        raise not_found()
    return Reply(200, {"action": shapes.action(action, request.cloud)})


ROUTES = (
    ("GET", "/v2/actions", list_actions),
    ("GET", "/v2/actions/{action}", get_action),
    ("POST", "/v2/droplets/actions", begin_tagged),
    ("GET", "/v2/droplets/{droplet}/actions", list_droplet_actions),
    ("POST", "/v2/droplets/{droplet}/actions", begin),
    ("GET", "/v2/droplets/{droplet}/actions/{action}", get_action),
)
