"""Routes of `/v2/droplets`, without their actions (`actions.py`)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from engine.sandbox import shapes
from engine.sandbox.catalog import IMAGES, IMAGES_BY_ID, REGIONS, SIZES, Size
from engine.sandbox.errors import bad_request, unprocessable
from engine.sandbox.faults import FaultKind
from engine.sandbox.keys import find_key
from engine.sandbox.records import Droplet, DropletRequest
from engine.sandbox.routing import NO_CONTENT, Handler, Reply, Request, page_of
from engine.sandbox.tags import check_tag_name

HOSTNAME = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9.\-]{0,253}[a-zA-Z0-9])?")
MAX_NAMES = 10
MAX_USER_DATA_BYTES = 64 * 1024


def create(request: Request) -> Reply:
    """POST /v2/droplets, with `name` or `names`."""
    asked = _asked(request)
    stuck = any(f.kind is FaultKind.STUCK_NEW for f in request.hits)
    created = request.cloud.create_droplets(request.account, asked, stuck=stuck)
    links = {"actions": [shapes.action_link(a, request.origin) for _, a in created]}
    bodies = [shapes.droplet(d, request.cloud) for d, _ in created]
    for fault in request.hits:
        if fault.kind in (FaultKind.PLACEMENT_FAILURE, FaultKind.VANISH):
            for droplet, _ in created:
                request.cloud.doom(droplet, fault.seconds)
    if "names" in request.body:
        return Reply(202, {"droplets": bodies, "links": links})
    return Reply(202, {"droplet": bodies[0], "links": links})


def _asked(request: Request) -> DropletRequest:
    size, region = _size(request), _region(request)
    if region not in size.regions:
        raise unprocessable(f"Size {size.slug} is not available in region {region}.")
    user_data = request.text("user_data", "")
    if len(user_data.encode()) > MAX_USER_DATA_BYTES:
        raise unprocessable("User data is too long: at most 64 KiB")
    return DropletRequest(
        names=_names(request), region=region, size=size.slug, image=_image(request, size),
        tags=[check_tag_name(t) for t in request.list_of("tags", str)], key_ids=_keys(request),
        features=_features(request), user_data=user_data, vpc_uuid=_vpc(request, region),
    )  # fmt: skip


def _names(request: Request) -> Sequence[str]:
    names = request.list_of("names", str) if "names" in request.body else [request.text("name")]
    if not 0 < len(names) <= MAX_NAMES:
        raise unprocessable(f"names must have between 1 and {MAX_NAMES} entries")
    if bad := [n for n in names if not HOSTNAME.fullmatch(n)]:
        raise unprocessable(f"Only valid hostname characters are allowed. (a-z, A-Z, 0-9, . and -): {bad[0]!r}")
    return names


def _size(request: Request) -> Size:
    if (size := SIZES.get(request.text("size"))) is None:
        raise unprocessable("You specified an invalid size for Droplet creation.")
    return size


def _region(request: Request) -> str:
    slug = request.text("region", "nyc3")
    matching = [r for r in REGIONS if r == slug] or [r for r in REGIONS if r[:-1] == slug]
    if not matching:
        raise unprocessable("You specified an invalid region for Droplet creation.")
    return matching[0]


def _image(request: Request, size: Size) -> int:
    wanted = request.body.get("image")
    image = None
    if isinstance(wanted, str):
        image = IMAGES.get(wanted) or (IMAGES_BY_ID.get(int(wanted)) if wanted.isascii() and wanted.isdigit() else None)
    elif isinstance(wanted, int) and not isinstance(wanted, bool):
        image = IMAGES_BY_ID.get(wanted)
    if image is None:
        raise unprocessable("You specified an invalid image for Droplet creation.")
    if image.min_disk_gib > size.disk_gib:
        raise unprocessable("The image you specified requires a larger disk than the size you specified has.")
    return image.id


def _keys(request: Request) -> list[int]:
    found = []
    for identifier in request.list_of("ssh_keys", str, int):
        if (key := find_key(request.account, identifier)) is None:
            raise unprocessable(f"{identifier} are invalid key identifiers for Droplet creation.")
        found.append(key.id)
    return found


def _features(request: Request) -> list[str]:
    return ["droplet_agent", "private_networking"] + [
        name for name in ("monitoring", "ipv6", "backups") if request.body.get(name) is True
    ]


def _vpc(request: Request, region: str) -> str:
    uuid = request.text("vpc_uuid", "")
    if uuid and (uuid not in request.account.vpcs or request.account.vpcs[uuid].region != region):
        raise unprocessable(f"VPC {uuid} does not exist in region {region}")
    return uuid


def list_droplets(request: Request) -> Reply:
    """GET /v2/droplets. Without a tag, GPU Droplets come only when `type=gpus` asks for them (as documented)."""
    query, account = request.query, request.account
    name, tag_name, kind = query.get("name"), query.get("tag_name"), query.get("type")
    if tag_name and (name or kind):
        raise bad_request("tag_name can not be combined with name or type")
    if kind not in (None, "", "droplets", "gpus"):
        raise bad_request("type must be droplets or gpus")
    found: Sequence[Droplet]
    if tag_name:
        tag = account.tags.get(tag_name.lower())
        found = [account.droplets[i] for i in sorted(tag.droplet_ids)] if tag else []
    else:
        gpus = kind == "gpus"
        found = [d for d in account.droplets.values() if (SIZES[d.size].gpu is not None) == gpus]
    if name:
        found = [d for d in found if d.name.lower() == name.lower()]
    return page_of(request, "droplets", found, lambda d: shapes.droplet(d, request.cloud))


def droplet_of(request: Request) -> Droplet:
    """The Droplet the path names.

    Raises:
        ApiError: 404.
    """
    return request.cloud.droplet(request.account, request.int_value("droplet"))


def get(request: Request) -> Reply:
    """GET /v2/droplets/{droplet}"""
    return Reply(200, {"droplet": shapes.droplet(droplet_of(request), request.cloud)})


def delete(request: Request) -> Reply:
    """DELETE /v2/droplets/{droplet}"""
    request.cloud.destroy(request.account, droplet_of(request))
    return NO_CONTENT


def delete_accepted(request: Request) -> Reply:
    """DELETE …/destroy_with_associated_resources/…: nothing is associated here, so it is a destroy."""
    request.cloud.destroy(request.account, droplet_of(request))
    return Reply(202)


def delete_tagged(request: Request) -> Reply:
    """DELETE /v2/droplets?tag_name=…"""
    name = request.query.get("tag_name")
    if not name:
        raise bad_request("tag_name is required: it says which Droplets to delete")
    tag = request.account.tags.get(name.lower())
    for droplet_id in list(tag.droplet_ids) if tag else []:
        request.cloud.destroy(request.account, request.account.droplets[droplet_id])
    return NO_CONTENT


def firewalls(request: Request) -> Reply:
    """GET /v2/droplets/{droplet}/firewalls: those that name it, or one of its tags."""
    droplet = droplet_of(request)
    found = [
        f for f in request.account.firewalls.values() if droplet.id in f.droplet_ids or set(f.tags) & set(droplet.tags)
    ]
    return page_of(request, "firewalls", found, shapes.firewall)


def _empty(key: str) -> tuple[str, str, Handler]:
    def handler(request: Request) -> Reply:
        droplet_of(request)
        return page_of(request, key, [], lambda item: item)

    return "GET", f"/v2/droplets/{{droplet}}/{key}", handler


def neighbors(request: Request) -> Reply:
    """GET /v2/droplets/{droplet}/neighbors: no two Droplets here share a host."""
    droplet_of(request)
    return Reply(200, {"droplets": []})


def associated(request: Request) -> Reply:
    """GET /v2/droplets/{droplet}/destroy_with_associated_resources: snapshots and volumes; there are none."""
    droplet_of(request)
    kinds = ("reserved_ips", "floating_ips", "snapshots", "volumes", "volume_snapshots")
    return Reply(200, {kind: [] for kind in kinds})


ROUTES = (
    ("GET", "/v2/droplets", list_droplets),
    ("POST", "/v2/droplets", create),
    ("DELETE", "/v2/droplets", delete_tagged),
    ("GET", "/v2/droplets/{droplet}", get),
    ("DELETE", "/v2/droplets/{droplet}", delete),
    ("GET", "/v2/droplets/{droplet}/firewalls", firewalls),
    _empty("backups"),
    _empty("snapshots"),
    _empty("kernels"),
    ("GET", "/v2/droplets/{droplet}/neighbors", neighbors),
    ("GET", "/v2/droplets/{droplet}/destroy_with_associated_resources", associated),
    ("DELETE", "/v2/droplets/{droplet}/destroy_with_associated_resources/selective", delete_accepted),
    ("DELETE", "/v2/droplets/{droplet}/destroy_with_associated_resources/dangerous", delete_accepted),
)
