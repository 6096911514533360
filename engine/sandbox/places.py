"""Routes of what is there to choose from: the account, regions, sizes, images and private networks."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any

from engine.sandbox import shapes
from engine.sandbox.assets import Cluster, LoadBalancer, Snapshot
from engine.sandbox.catalog import IMAGES, IMAGES_BY_ID, REGIONS, SIZES, Image
from engine.sandbox.errors import bad_request, not_found, unprocessable
from engine.sandbox.records import Account, Vpc
from engine.sandbox.routing import NO_CONTENT, Reply, Request, page_of


def get_account(request: Request) -> Reply:
    """GET /v2/account"""
    return Reply(200, {"account": shapes.account(request.account, request.cloud)})


def list_regions(request: Request) -> Reply:
    """GET /v2/regions"""
    capacity = request.cloud.capacity
    return page_of(request, "regions", list(REGIONS.values()), lambda r: shapes.region(r, capacity))


def list_sizes(request: Request) -> Reply:
    """GET /v2/sizes"""
    capacity = request.cloud.capacity
    return page_of(request, "sizes", list(SIZES.values()), lambda s: shapes.size(s, capacity))


def list_images(request: Request) -> Reply:
    """GET /v2/images: public distributions and, as `private`, the account's own snapshots of Droplets."""
    query, own = request.query, _own_images(request.account)
    if query.get("type") not in (None, "", "distribution", "application"):
        raise bad_request("type must be distribution or application")
    public: list[Image] = [] if query.get("type") == "application" else list(IMAGES.values())
    if tag := query.get("tag_name"):
        public, own = [], [s for s in own if tag.lower() in (t.lower() for t in s.tags)]
    if query.get("private") == "true":
        public = []
    elif query.get("type"):
        own = []
    return page_of(request, "images", [*public, *own], _image_shape)


def _own_images(account: Account) -> list[Snapshot]:
    return [s for s in account.table(Snapshot).values() if s.source_type == "droplet"]


def _image_shape(item: Image | Snapshot) -> dict[str, Any]:
    return shapes.image(item) if isinstance(item, Image) else shapes.snapshot_image(item)


def get_image(request: Request) -> Reply:
    """GET /v2/images/{image}, by id or slug."""
    wanted = request.values["image"]
    numeric = wanted.isascii() and wanted.isdigit()
    image: Image | None = IMAGES_BY_ID.get(int(wanted)) if numeric else IMAGES.get(wanted)
    return Reply(200, {"image": _image_shape(image or _own_image(request))})


def _own_image(request: Request) -> Snapshot:
    found = request.asset(Snapshot, "image")
    if found.source_type != "droplet":
        raise not_found()
    return found


def update_image(request: Request) -> Reply:
    """PUT /v2/images/{image}, of the account's own."""
    image, cloud = _own_image(request), request.cloud
    name, description = request.text("name", image.name), request.text("description", image.description)
    image.name, image.description = name, description
    cloud.save(image)
    cloud.journal.add(cloud.now(), request.account.name, "snapshot.updated", image.id, name=image.name)
    return Reply(200, {"image": shapes.snapshot_image(image)})


def delete_image(request: Request) -> Reply:
    """DELETE /v2/images/{image}, of the account's own."""
    request.cloud.assets.remove(request.account, _own_image(request))
    return NO_CONTENT


def _vpc(request: Request) -> Vpc:
    if (found := request.account.vpcs.get(request.values["vpc"])) is None:
        raise not_found()
    return found


def list_vpcs(request: Request) -> Reply:
    """GET /v2/vpcs"""
    return page_of(request, "vpcs", list(request.account.vpcs.values()), shapes.vpc)


def get_vpc(request: Request) -> Reply:
    """GET /v2/vpcs/{vpc}"""
    return Reply(200, {"vpc": shapes.vpc(_vpc(request))})


def create_vpc(request: Request) -> Reply:
    """POST /v2/vpcs"""
    region, cloud = request.text("region"), request.cloud
    if region not in REGIONS:
        raise unprocessable("region is invalid")
    cloud.default_vpc(request.account, region)
    vpc = Vpc(
        cloud.new_uuid(), request.account.name, _free_name(request, None), region, _ip_range(request), cloud.now(),
        request.text("description", ""), default=False,
    )  # fmt: skip
    request.account.vpcs[vpc.id] = vpc
    cloud.save(vpc)
    cloud.journal.add(cloud.now(), request.account.name, "vpc.created", vpc.id, name=vpc.name)
    return Reply(201, {"vpc": shapes.vpc(vpc)})


def _free_name(request: Request, existing: Vpc | None) -> str:
    name = request.text("name")
    if any(v.name == name and v is not existing for v in request.account.vpcs.values()):
        raise unprocessable("a VPC with this name already exists")
    return name


def _ip_range(request: Request) -> str:
    taken = [IPv4Network(v.ip_range) for v in request.account.vpcs.values()]
    text = request.text("ip_range", "")
    if not text:
        free = (n for n in IPv4Network("10.200.0.0/13").subnets(new_prefix=20) if not any(n.overlaps(t) for t in taken))
        return str(next(free))
    try:
        network = IPv4Network(text)
    except ValueError as err:
        raise unprocessable(f"ip_range: {err}") from None
    if not network.is_private or not 16 <= network.prefixlen <= 28:
        raise unprocessable("ip_range must be a private network between /16 and /28")
    if any(network.overlaps(t) for t in taken):
        raise unprocessable("This range/size overlaps with another VPC network in your account")
    return str(network)


def update_vpc(request: Request) -> Reply:
    """PUT and PATCH /v2/vpcs/{vpc}"""
    vpc = _vpc(request)
    if request.method == "PUT" or "name" in request.body:
        vpc.name = _free_name(request, vpc)
    vpc.description = request.text("description", vpc.description)
    if request.flag("default") and not vpc.default:
        old = request.cloud.default_vpc(request.account, vpc.region)
        old.default, vpc.default = False, True
        request.cloud.save(old)
    request.cloud.save(vpc)
    return Reply(200, {"vpc": shapes.vpc(vpc)})


def delete_vpc(request: Request) -> Reply:
    """DELETE /v2/vpcs/{vpc}"""
    vpc, cloud = _vpc(request), request.cloud
    if vpc.default:
        raise unprocessable("The default VPC can not be deleted.")
    if _members(request, vpc):
        raise unprocessable("Can not delete VPC with members")
    del request.account.vpcs[vpc.id]
    cloud.forget(vpc)
    cloud.journal.add(cloud.now(), request.account.name, "vpc.deleted", vpc.id, name=vpc.name)
    return NO_CONTENT


def _members(request: Request, vpc: Vpc) -> list[tuple[str, str, float]]:
    """URN, name and time of what is in a network."""
    account = request.account
    droplets = [d for d in account.droplets.values() if d.vpc_uuid == vpc.id]
    balancers = [b for b in account.table(LoadBalancer).values() if b.spec["vpc_uuid"] == vpc.id]
    clusters = [c for c in account.table(Cluster).values() if c.vpc_uuid == vpc.id]
    return [
        *((f"do:droplet:{d.id}", d.name, d.created_at) for d in droplets),
        *((a.urn, a.name, a.created_at) for a in [*balancers, *clusters]),
    ]


def list_members(request: Request) -> Reply:
    """GET /v2/vpcs/{vpc}/members, of one `resource_type` if asked."""
    members, kind = _members(request, _vpc(request)), request.query.get("resource_type")
    found = [m for m in members if not kind or m[0].split(":")[1] == kind.lower()]
    return page_of(
        request, "members", found,
        lambda m: {"urn": m[0], "name": m[1], "created_at": shapes.timestamp(m[2])},
    )  # fmt: skip


ROUTES = (
    ("GET", "/v2/account", get_account),
    ("GET", "/v2/regions", list_regions),
    ("GET", "/v2/sizes", list_sizes),
    ("GET", "/v2/images", list_images),
    ("GET", "/v2/images/{image}", get_image),
    ("PUT", "/v2/images/{image}", update_image),
    ("DELETE", "/v2/images/{image}", delete_image),
    ("GET", "/v2/vpcs", list_vpcs),
    ("POST", "/v2/vpcs", create_vpc),
    ("GET", "/v2/vpcs/{vpc}", get_vpc),
    ("PUT", "/v2/vpcs/{vpc}", update_vpc),
    ("PATCH", "/v2/vpcs/{vpc}", update_vpc),
    ("DELETE", "/v2/vpcs/{vpc}", delete_vpc),
    ("GET", "/v2/vpcs/{vpc}/members", list_members),
)
