"""Routes of `/v2/droplets`, without their actions (`actions.py`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal

from engine.sandbox import billing, shapes
from engine.sandbox.assets import ReservedIp, Snapshot, Volume
from engine.sandbox.catalog import IMAGES, IMAGES_BY_ID, REGIONS, SIZES, Size
from engine.sandbox.errors import bad_request, unprocessable
from engine.sandbox.faults import FaultKind
from engine.sandbox.keys import find_key
from engine.sandbox.records import Account, Droplet, DropletRequest
from engine.sandbox.routing import NO_CONTENT, Handler, Reply, Request, page_of
from engine.sandbox.tags import check_tag_name
from engine.sandbox.volumes import check_attachable

HOSTNAME = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9.\-]{0,253}[a-zA-Z0-9])?")
MAX_NAMES = 10
MAX_USER_DATA_BYTES = 64 * 1024
ASSOCIATED = ("reserved_ips", "snapshots", "volumes", "volume_snapshots")


def create(request: Request) -> Reply:
    """POST /v2/droplets, with `name` or `names`."""
    asked = _asked(request)
    stuck = any(f.kind is FaultKind.STUCK_NEW for f in request.hits)
    created = request.cloud.create_droplets(request.account, asked, stuck=stuck, hits=request.hits)
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
        volume_ids=_volumes(request, region),
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
    if isinstance(wanted, str) and wanted in IMAGES:
        wanted = IMAGES[wanted].id
    number = 0
    if isinstance(wanted, str) and wanted.isascii() and wanted.isdigit():
        number = int(wanted)
    elif isinstance(wanted, int) and not isinstance(wanted, bool):
        number = wanted
    public, own = IMAGES_BY_ID.get(number), snapshot_image(request.account, number)
    least = public.min_disk_gib if public else own.min_disk_gib if own else None
    if least is None:
        raise unprocessable("You specified an invalid image for Droplet creation.")
    if least > size.disk_gib:
        raise unprocessable("The image you specified requires a larger disk than the size you specified has.")
    return number


def snapshot_image(account: Account, number: int) -> Snapshot | None:
    """The account's own image of this id: a Droplet's snapshot."""
    found = account.table(Snapshot).get(str(number))
    return found if found is not None and found.source_type == "droplet" else None


def _volumes(request: Request, region: str) -> list[str]:
    ids = list(dict.fromkeys(request.list_of("volumes", str)))
    if ids and "names" in request.body and len(request.list_of("names", str)) > 1:
        raise unprocessable("volumes can be attached to one Droplet only")
    table = request.account.table(Volume)
    if missing := [i for i in ids if i not in table]:
        raise unprocessable(f"volume {missing[0]} does not exist")
    check_attachable(request, region, [table[i] for i in ids])
    return ids


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


def delete_selectively(request: Request) -> Reply:
    """DELETE …/destroy_with_associated_resources/selective: the Droplet, and what the body names of its things."""
    droplet = droplet_of(request)
    named = {kind: request.list_of(kind, str, int) for kind in ASSOCIATED}
    return _destroy_with(request, droplet, {str(id) for ids in named.values() for id in ids})


def delete_all(request: Request) -> Reply:
    """DELETE …/destroy_with_associated_resources/dangerous: the Droplet and everything that belongs to it."""
    return _destroy_with(request, droplet_of(request), None)


def _destroy_with(request: Request, droplet: Droplet, named: set[str] | None) -> Reply:
    things = [a for kind in _associated(request, droplet).values() for a in kind]
    request.cloud.destroy(request.account, droplet)
    for asset in things:
        if named is None or asset.id in named:
            request.cloud.assets.remove(request.account, asset)
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


def list_snapshots(request: Request) -> Reply:
    """GET /v2/droplets/{droplet}/snapshots"""
    table = request.account.table(Snapshot)
    found = [table[str(i)] for i in droplet_of(request).snapshot_ids]
    return page_of(request, "snapshots", found, shapes.droplet_snapshot)


def _associated(request: Request, droplet: Droplet) -> dict[str, list[ReservedIp | Snapshot | Volume]]:
    account = request.account
    snapshots = account.table(Snapshot)
    return {
        "reserved_ips": [i for i in account.table(ReservedIp).values() if i.droplet_id == droplet.id],
        "snapshots": [snapshots[str(i)] for i in droplet.snapshot_ids],
        "volumes": [account.table(Volume)[i] for i in droplet.volume_ids],
        "volume_snapshots": [s for s in snapshots.values() if s.source in droplet.volume_ids],
    }


def associated(request: Request) -> Reply:
    """GET /v2/droplets/{droplet}/destroy_with_associated_resources, each with its price of a month."""
    found = _associated(request, droplet_of(request))
    shown = {
        kind: [{"id": a.id, "name": a.name, "cost": f"{Decimal(a.rate_usd) * billing.HOURS:.2f}"} for a in found[kind]]
        for kind in ASSOCIATED
    }
    return Reply(200, shown | {"floating_ips": []})


ROUTES = (
    ("GET", "/v2/droplets", list_droplets),
    ("POST", "/v2/droplets", create),
    ("DELETE", "/v2/droplets", delete_tagged),
    ("GET", "/v2/droplets/{droplet}", get),
    ("DELETE", "/v2/droplets/{droplet}", delete),
    ("GET", "/v2/droplets/{droplet}/firewalls", firewalls),
    _empty("backups"),
    ("GET", "/v2/droplets/{droplet}/snapshots", list_snapshots),
    _empty("kernels"),
    ("GET", "/v2/droplets/{droplet}/neighbors", neighbors),
    ("GET", "/v2/droplets/{droplet}/destroy_with_associated_resources", associated),
    ("DELETE", "/v2/droplets/{droplet}/destroy_with_associated_resources/selective", delete_selectively),
    ("DELETE", "/v2/droplets/{droplet}/destroy_with_associated_resources/dangerous", delete_all),
)
